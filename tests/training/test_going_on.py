"""A run goes on: longer, with other frequencies, or refused; its length in steps; checkpoints."""

import dataclasses
import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import cast, distance, tiny_config

import jaxclr
from jaxclr import training
from jaxclr.errors import UserError
from jaxclr.processes import runtime
from jaxclr.runs.config import Extension, extensions_at
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.batches import Batch, batch_rows
from jaxclr.steps.optimizers import make_optimizer
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.step import map_step, train_step
from jaxclr.training.clock import Alarm

pytestmark = pytest.mark.xdist_group("going_on")  # one trained run for all

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
    config = tiny_config("sim_affinity", epochs=1, warmup_epochs=0.5, checkpoint_every=1, **changes)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, source=source))


def said(call, *args, **options):
    """What a call returns, and what it printed."""
    console = rich.console.Console(file=io.StringIO(), width=1000)
    return call(*args, console=console, **options), console.file.getvalue()


@pytest.fixture(scope="module")
def extended(source, tmp_path_factory):
    """A run of one epoch that went on to two: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("runs") / "extended"
    said(jaxclr.train, config_of(source), out)
    longer = config_of(source, log_every=1)
    longer = dataclasses.replace(longer, epochs=2)
    _, text = said(jaxclr.train, longer, out)
    return out, longer, text


def test_more_epochs_extend_a_run_and_are_recorded(extended):
    out, longer, text = extended
    assert "Changed from here on: log_every: 10 is now 1." in text
    assert "Extended from 2 to 4 steps at step 2" in text
    tree = json.loads((out / "config.json").read_text())
    assert (tree["epochs"], tree["log_every"]) == (2, 1)
    assert tree["extensions"] == [[2, 2]]
    assert [line["step"] for line in RunFolder(out).lines() if "loss" in line] == [2, 3, 4]
    page = (out / "report.html").read_text()
    assert "extended at step 2 of 2" in page and page.count("Dotted: the run was extended") > 3
    # The same command finds a finished run.
    _, text = said(jaxclr.train, longer, out)
    assert "it is finished" in text and "Extended" not in text


RATE = 0.5 * 16 / 256  # of tiny_config's optimizer and batch


def rate_by_hand(step, steps):
    """Learning rate of a run of so many steps with one step of warm-up."""
    if step < 1:
        return 0.0
    return RATE * (1 + np.cos(np.pi * (step - 1) / (steps - 1))) / 2


class ByHand(Recipe):
    """Takes the number of steps of each step from a list."""

    def steps_at(self, step):
        return jnp.array([2, 2, 4, 4])[step]


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
    """Two steps of a run of 2, then two of a run of 4: learning rate, momentum of the target."""
    out, longer, _ = extended
    session = training.open_session(dataclasses.replace(longer, extensions=(Extension(2, 2),)))
    rates = [rate_by_hand(0, 2), rate_by_hand(1, 2), rate_by_hand(2, 4), rate_by_hand(3, 4)]
    optimizer = make_optimizer(
        longer.optimizer, schedule=lambda step: jnp.array(rates)[step], clip_norm=None, peak=RATE
    )
    by_hand = ByHand(*session.recipe._replace(optimizer=optimizer))
    state, found = steps_of(session.recipe, session, 4)
    np.testing.assert_allclose(found, rates, rtol=1e-12)
    wanted, _ = steps_of(by_hand, session, 4)
    for name in ("params", "target_params", "batch_stats"):
        assert distance(getattr(state, name), getattr(wanted, name)) < 1e-13
    assert distance(state.params, session.init_state().params) > 1e-3
    logged = [line["learning_rate"] for line in RunFolder(out).lines() if "loss" in line]
    np.testing.assert_allclose(logged, rates[1:], rtol=1e-6)


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
    with pytest.raises(UserError, match="warm-up has 5 steps, and the run 4"):
        jaxclr.train(dataclasses.replace(longer, warmup_steps=5, steps=4), out)
    assert (out / "config.json").read_bytes() == before
    assert jaxclr.Run(out, dataclasses.replace(longer, log_every=7)).config.log_every == 1


def test_a_length_in_steps_and_checkpoints_by_minutes(extended, source, tmp_path, monkeypatch):
    config = config_of(source, steps=3, warmup_steps=1, checkpoint_minutes=1e-9, evaluate_every=0.5)
    config = dataclasses.replace(config, checkpoint_every=1e6)
    session, run = training.open_session(config), RunFolder(tmp_path / "run")
    run.create(session.config, overwrite=False)
    seen = lambda subject: {"at": int(subject.state.step)}
    said(training.train, session, run, evaluate=seen)
    lines = run.lines()
    assert session.steps == 3
    assert [line["step"] for line in lines if "save_seconds" in line] == [1, 2, 3]
    assert [(line["epoch"], line["at"]) for line in lines if "at" in line] == [
        (0.5, 1),
        (1, 2),
        (1.5, 3),
    ]


def test_several_processes_take_the_time_of_the_first(monkeypatch):
    asked = []
    monkeypatch.setattr(runtime, "is_single", lambda: False)
    monkeypatch.setattr(runtime, "broadcast", lambda number: asked.append(number) or 1)
    assert not Alarm(1e-9).rings(now=False) and not Alarm(None).rings(now=True) and not asked
    assert Alarm(60.0).rings(now=True) and asked == [0]  # this one's clock has not run out
