"""A run goes on: longer, with other frequencies, or refused; its length in steps; checkpoints."""

import dataclasses
import functools
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import cast, distance, tiny_config

import jaxclr
from jaxclr import cli, training
from jaxclr.encoders import SmallConv
from jaxclr.errors import UserError
from jaxclr.pretraining import go_on
from jaxclr.processes import runtime
from jaxclr.runs.config import Extension, extensions_at
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.batches import Batch, batch_rows
from jaxclr.steps.optimizers import make_optimizer
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.step import map_step, train_step
from jaxclr.training.clock import Alarm
from jaxclr.training.session import make_recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
STEPS = 2  # in an epoch


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """Compiles quickly, and steps of 16 rows are of one device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "devices", lambda: jax.devices()[:1])
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, train_images=IMAGES)
    return f"npz:{path}"


def config_of(source, **changes):
    config = tiny_config(
        "sim_affinity",
        **{"epochs": 1, "warmup_epochs": 0.5, "checkpoint_every": 1e6, **changes},
        encoder=SmallConv(widths=(4,)),
    )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))


class Recorder:
    """A logger that keeps what it gets."""

    def __init__(self):
        self.steps, self.config = [], {}

    def start(self, folder, config):
        self.config = config

    def write(self, step, values):
        self.steps += [step] * ("loss" in values)

    def close(self):
        self.steps.append("closed")


LOGGER = Recorder()


def said(call, *args, **options):
    """What a call returns, and what it printed."""
    console = rich.console.Console(file=io.StringIO(), width=1000)
    return call(*args, console=console, **options), console.file.getvalue()


@pytest.fixture(scope="module")
def extended(source, tmp_path_factory):
    """A run of one epoch that went on to two: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("runs") / "extended"
    said(jaxclr.train, config_of(source, checkpoint_minutes=1e-9, evaluate_every=0.5), out)
    longer = config_of(source, epochs=2, log_every=1)
    _, text = said(jaxclr.train, longer, out, loggers=[LOGGER])
    return out, longer, text


def test_more_epochs_extend_a_run_and_are_recorded(extended):
    out, longer, text = extended
    assert "Changed from here on: checkpoint_minutes: 1e-09 is now None; evaluate_every: " in text
    assert "; log_every: 10 is now 1." in text
    assert "Extended from 2 to 4 steps at step 2" in text
    tree = json.loads((out / "config.json").read_text())
    assert (tree["epochs"], tree["log_every"], tree["extensions"]) == (2, 1, [[2, 2]])
    lines = RunFolder(out).lines()
    assert [line["step"] for line in lines if "loss" in line] == [2, 3, 4]
    page = (out / "report.html").read_text()
    assert "extended at step 2 of 2" in page and page.count("Dotted: the run was extended") > 3
    # The same command finds a finished run.
    _, text = said(jaxclr.train, longer, out)
    assert "it is finished" in text and "Extended" not in text


def test_checkpoints_are_by_minutes_and_evaluations_by_parts_of_epochs(extended):
    lines = RunFolder(extended[0]).lines()
    assert [line["step"] for line in lines if "save_seconds" in line] == [1, 2, 4]
    assert [line["epoch"] for line in lines if "epoch" in line] == [0.5, 1]


RATE = 0.5 * 16 / 256  # of tiny_config's optimizer and batch


def rate_by_hand(step, steps):
    """Learning rate of a run of so many steps with one step of warm-up."""
    if step < 1:
        return 0.0
    return RATE * (1 + np.cos(np.pi * (step - 1) / (steps - 1))) / 2


class ByHand(Recipe):
    """Takes the number of steps of each step from a list."""

    def steps_at(self, step):
        return jnp.array([3, 3, 3, 5, 5])[step]


def steps_of(recipe, session, count):
    """The state after so many steps in float64, and their learning rates."""
    per_device = functools.partial(train_step, recipe=recipe, axis_name=AXIS)
    step = map_step(per_device, session.mesh, "shard_map")
    rates = []
    with jax.enable_x64(True):
        state = cast(jax.device_get(session.init_state()), jnp.float64)
        for index in range(count):
            rows = np.asarray(batch_rows(40, batch_size=16, seed=recipe.seed, step=index))
            state, metrics = step(state, Batch(IMAGES[rows], rows, np.full(16, -1, np.int32)))
            rates.append(metrics["learning_rate"].item())
        return jax.device_get(state), rates


def test_the_steps_are_those_of_both_lengths_by_hand(extended, source):
    """Three steps of a run of 3, then two of a run of 5: learning rate, momentum of the target."""
    out, longer, _ = extended
    config = dataclasses.replace(longer, steps=5, warmup_steps=1, extensions=(Extension(3, 3),))
    session = training.open_session(config)
    rates = [rate_by_hand(step, 3) for step in range(3)] + [rate_by_hand(3, 5), rate_by_hand(4, 5)]
    state, found = steps_of(session.recipe, session, 5)
    np.testing.assert_allclose(found, rates, rtol=1e-6)  # Optax computes them in float32
    optimizer = make_optimizer(
        longer.optimizer, schedule=lambda step: jnp.array(found)[step], clip_norm=None, peak=RATE
    )
    by_hand = ByHand(*session.recipe._replace(optimizer=optimizer, steps=9, extensions=()))
    wanted, _ = steps_of(by_hand, session, 5)
    for name in ("params", "target_params", "batch_stats"):
        assert distance(getattr(state, name), getattr(wanted, name)) < 1e-13
    assert distance(state.params, session.init_state().params) > 1e-3
    logged = [line["learning_rate"] for line in RunFolder(out).lines() if "loss" in line]
    stretched = [rate_by_hand(1, 2), rate_by_hand(2, 4), rate_by_hand(3, 4)]
    np.testing.assert_allclose(logged, stretched, rtol=1e-6)


def test_extensions_are_by_step():
    first = extensions_at(22, (), 22)
    assert first == (Extension(22, 22),)
    assert extensions_at(22, first, 44) == first  # once more, before it took a step
    assert extensions_at(33, first, 44) == (*first, Extension(33, 44))
    assert extensions_at(11, first, 44) == (Extension(11, 22),)  # the newest one was damaged
    assert extensions_at(0, (), 22) == ()


def test_what_changes_the_result_is_refused_by_name(extended):
    out, longer, _ = extended
    before = (out / "config.json").read_bytes()
    hotter = dataclasses.replace(longer, method=longer.method.replace(temperature=0.3), log_every=9)
    with pytest.raises(
        UserError,
        match=r"another configuration: method.temperature: 1.0 is now 0.3\. Continue it as it is "
        "with `jaxclr resume .*`, replace it with --overwrite, or give another folder with --out",
    ):
        jaxclr.train(hotter, out)
    with pytest.raises(UserError, match=r"4 steps and cannot become one of 2 \(epochs: 2 is now 1"):
        jaxclr.Run(out).resume(epochs=1)
    assert (out / "config.json").read_bytes() == before
    assert jaxclr.Run(out, dataclasses.replace(longer, log_every=7)).config.log_every == 1


def test_lengths_are_in_steps(extended, source, tmp_path):
    out, longer, _ = extended
    session = training.open_session(dataclasses.replace(longer, steps=7, warmup_steps=1))
    assert session.steps == 7 and session.recipe.schedule(1) == np.float32(RATE)
    with pytest.raises(UserError, match="warm-up has 5 steps, and the run 4"):
        make_recipe(dataclasses.replace(longer, warmup_steps=5), images=40, classes=0)
    copy = RunFolder(shutil.copytree(out, tmp_path / "copy"))
    for _ in range(2):
        going_on = go_on(copy, session, print)
        assert going_on.recipe.extensions == ((2, 2), (4, 4)) and going_on.steps == 7
    assert [going_on.recipe.steps_at(step) for step in range(6)] == [2, 2, 4, 4, 7, 7]
    assert copy.config() == dataclasses.replace(going_on.config, warmup_steps=None)
    assert jaxclr.Run(copy.folder).config.steps == 7


def test_several_processes_take_the_time_of_the_first(monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "is_single", lambda: False)
    monkeypatch.setattr(runtime, "broadcast", lambda number: asked.append(number) or 1)
    assert not Alarm(1e-9).rings(now=False) and not Alarm(None).rings(now=True) and not asked
    assert Alarm(60.0).rings(now=True) and asked == [0]  # this one's clock has not run out


def test_figures_of_the_earlier_end_are_kept(extended, tmp_path):
    run = RunFolder(shutil.copytree(extended[0], tmp_path / "copy"))
    record = lambda step, mean: {"step": step, "features": {"trained": {"kNN 20": {"mean": mean}}}}
    run.write_evaluation(record(2, 0.25))
    page = jaxclr.Run(run.folder).report().read_text()
    assert "25.0\N{NO-BREAK SPACE}% <small>step 2</small>" in page
    run.write_protocol("knn", {"step": 4, "percent": True, "figures": {}})
    for _ in range(2):
        run.write_evaluation(record(4, 0.5))
    tree = json.loads(run.evaluation.read_text())
    assert tree["earlier"] == {"2": {"kNN 20": {"mean": 0.25}}} and "knn" in tree["protocols"]
    page = jaxclr.Run(run.folder).report().read_text()
    assert "50.0\N{NO-BREAK SPACE}% <small>step 2 25.0</small>" in page


@pytest.mark.usefixtures("extended")
def test_loggers_get_the_steps_of_a_run():
    assert LOGGER.steps == [3, 4, "closed"]
    assert LOGGER.config["epochs"] == 2 and LOGGER.config["extensions"] == [[2, 2]]


def test_the_command_line_extends_and_logs(extended, monkeypatch, capsys):
    given = {}
    monkeypatch.setattr(jaxclr.Run, "resume", lambda self, **options: given.update(options))
    cli.main(["resume", str(extended[0]), "--epochs", "3", "--log", "wandb"])
    assert (given["epochs"], given["steps"]) == (3, None)
    assert given["loggers"] == (training.Wandb(),)
    with pytest.raises(SystemExit):
        cli.main(["resume", str(extended[0]), "--log", "mlflow"])
    assert "wandb" in capsys.readouterr().err
