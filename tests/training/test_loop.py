"""A run from start to end: stopping, resuming, compiling once, and losses that are not finite."""

import dataclasses
import gzip
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import tiny_config

from jaxclr import training
from jaxclr.augment import AUGMENTATIONS
from jaxclr.errors import UserError
from jaxclr.evaluation.closing import monitor
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.batches import resident, resident_batches
from jaxclr.steps.optimizers import make_optimizer
from jaxclr.training import loop

pytestmark = pytest.mark.usefixtures("one_program")
QUIET = rich.console.Console(file=io.StringIO())
# 22 steps in two epochs of digits, on 8 devices
CONFIG = dataclasses.replace(
    tiny_config("sim_affinity"), batch_size=128, log_every=3, checkpoint_every=1
)


@pytest.fixture(scope="module")
def session():
    return training.open_session(CONFIG)


@pytest.fixture(scope="module")
def uninterrupted(session, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("runs") / "whole")
    run.create(session.config, overwrite=False)
    return run, training.train(session, run, console=QUIET, profile=range(4, 6))


def metrics(run):
    """The lines of metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    clocked = lambda name: name == "images_per_second" or name.endswith("_seconds")
    lines = [{k: v for k, v in line.items() if not clocked(k)} for line in lines]
    return [line for line in lines if len(line) > 1]


def blocked(run):
    """Seconds that each save held the steps up, by step."""
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return {line["step"]: line["save_seconds"] for line in lines if "save_seconds" in line}


def test_a_stopped_run_resumes_to_the_same_bits(session, uninterrupted, tmp_path):
    whole, state = uninterrupted
    run = RunFolder(tmp_path / "run")
    run.create(session.config, overwrite=False)
    training.train(session, run, console=QUIET, stop_after=7)
    # A run that was killed leaves lines past its newest checkpoint, the last one incomplete.
    with run.metrics.open("a") as file:
        file.write('{"step": 9, "loss": 0.0}\n{"step": 1')
    again = training.train(session, run, console=QUIET)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    # the interruption itself is logged: its step is a line more
    assert [line for line in metrics(run) if line["step"] != 7] == metrics(whole)


def test_logs_checkpoints_and_events_are_there(session, uninterrupted):
    run, state = uninterrupted
    assert [line["step"] for line in metrics(run)] == [3, 6, 9, 12, 15, 18, 21, 22]
    assert {"loss", "grad_norm", "learning_rate"} < metrics(run)[0].keys()
    assert int(state.step) == session.steps == 22
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["11", "22"]
    assert blocked(run).keys() == {11, 22} and min(blocked(run).values()) > 0
    assert list(run.tensorboard.glob("events*"))
    assert run.config() == session.config


def test_each_log_says_where_its_seconds_went(uninterrupted):
    run, _ = uninterrupted
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    logs = [line for line in lines if "loss" in line]
    always = {
        f"{part}_seconds" for part in ("input", "step", "logging", "checkpoint", "evaluation")
    }
    assert all(always <= line.keys() for line in logs)
    seconds = lambda part: [line["step"] for line in logs if line.get(f"{part}_seconds", 0) > 0]
    assert seconds("start") == [3] and seconds("profile") == [6, 9] and seconds("evaluation") == []
    assert seconds("checkpoint") == [12]  # that of step 11; the last one comes after the last log
    assert len(seconds("step")) == len(seconds("input")) == len(logs)
    for line in logs[1:]:
        spent = sum(line[f"{part}_seconds"] for part in ("input", "step", "logging"))
        steps = line["step"] - (line["step"] - 1) // 3 * 3
        assert line["images_per_second"] * spent == pytest.approx(128 * steps, rel=0.05)


def test_the_trace_holds_the_steps_that_were_asked_for(uninterrupted):
    run, _ = uninterrupted
    (for_perfetto,) = run.profile.glob("plugins/profile/*/perfetto_trace.json.gz")
    assert list(for_perfetto.parent.glob("*.xplane.pb"))  # TensorBoard's
    events = json.loads(gzip.decompress(for_perfetto.read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    assert [event["args"]["step_num"] for event in events if event.get("name") == "train"] == [
        "4",
        "5",
    ]
    assert names.count("input") == 2 and names.count("logging") == 1


def test_a_trace_of_steps_that_are_over_is_refused(session, uninterrupted):
    run, _ = uninterrupted
    with pytest.raises(
        UserError, match="--profile 2:5 begins before step 22, from which this run continues"
    ):
        training.train(session, run, console=QUIET, profile=range(2, 5))


def test_the_step_is_compiled_once(session, tmp_path, monkeypatch):
    traces = []
    original = loop.train_step
    monkeypatch.setattr(
        loop, "train_step", lambda *args, **kwargs: traces.append(None) or original(*args, **kwargs)
    )
    run = RunFolder(tmp_path / "run")
    run.create(session.config, overwrite=False)
    again = session._replace(recipe=session.recipe._replace())  # not yet compiled
    training.train(again, run, console=QUIET)
    assert len(traces) == 1


def breaking_update(recipe):
    schedule = lambda step: jnp.where(step == 7, jnp.inf, 0.1)
    optimizer = make_optimizer(CONFIG.optimizer, schedule=schedule, clip_norm=None, peak=0.1)
    return recipe._replace(schedule=schedule, optimizer=optimizer)


def breaking_loss(recipe):
    class Breaks(type(recipe.method)):
        def objective(self, out, state, axis_name):
            return super().objective(out, state, axis_name) + jnp.inf

    values = {f.name: getattr(recipe.method, f.name) for f in dataclasses.fields(recipe.method)}
    return recipe._replace(method=Breaks(**values))


@pytest.mark.parametrize("breaking, step", [(breaking_update, 7), (breaking_loss, 0)])
def test_what_is_not_finite_stops_with_the_last_good_state(session, tmp_path, breaking, step):
    broken = session._replace(recipe=breaking(session.recipe))
    run = RunFolder(tmp_path / "run")
    run.create(session.config, overwrite=False)
    with pytest.raises(UserError, match=f"not finite at step {step}. The state before it is kept"):
        training.train(broken, run, console=QUIET)
    with Checkpoints(run.checkpoints) as kept:
        state = kept.restore(session.init_state(), say=pytest.fail)
        assert int(state.step) == kept.latest == step and state.bad_step == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    seen = json.loads(run.bad_step.read_text())
    assert (seen["step"], seen["seed"]) == (step, CONFIG.seed)
    whole = resident(session.dataset.train, session.mesh)
    batches = resident_batches(
        whole, batch_size=128, seed=CONFIG.seed, mesh=session.mesh, start=step
    )
    np.testing.assert_array_equal(seen["images"], next(batches).indices)


def test_knn_is_measured_on_the_way(session, tmp_path):
    watched = session._replace(config=dataclasses.replace(session.config, evaluate_every=2))
    run = RunFolder(tmp_path / "run")
    run.create(session.config, overwrite=False)
    training.train(watched, run, console=QUIET, evaluate=monitor)
    last = metrics(run)[-1]
    assert last["epoch"] == 2 and 0.1 < last["knn_20"] <= 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="batch_size 100 cannot be spread evenly over 8 devices"):
        training.open_session(dataclasses.replace(CONFIG, batch_size=100))
    with pytest.raises(UserError, match="larger than the 1437 training images"):
        training.open_session(dataclasses.replace(CONFIG, batch_size=1440))
    with pytest.raises(UserError, match="needs 2 views, the augmentation makes 1"):
        one = dataclasses.replace(AUGMENTATIONS["digits"], views=AUGMENTATIONS["digits"].views[:1])
        dataclasses.replace(CONFIG, augmentation=one)


def test_a_folder_is_not_overwritten_by_accident(session, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(session.config, overwrite=False)
    with pytest.raises(UserError, match="holds a run already.*jaxclr resume"):
        run.create(session.config, overwrite=False)
    run.create(session.config, overwrite=True)
    other = RunFolder(tmp_path)
    with pytest.raises(UserError, match="not a run"):
        other.create(session.config, overwrite=True)
    assert run.config() == session.config
    with pytest.raises(UserError, match="cannot be written"):
        RunFolder(run.folder / "config.json" / "below").create(session.config, overwrite=False)
