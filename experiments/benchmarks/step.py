"""Time of a training step, by part, and the overhead of the training loop.

    python experiments/benchmarks/step.py [EXPERIMENT.py] [--method NAME] [--out FILE.json]

Four measurements, each the median of several repeats with its quartiles:

- The whole step, compiled, on one batch that lies on the devices: images per second.
- Its parts, each compiled alone: both views of the batch, and the loss with its gradient at
  embeddings of that shape. The rest of the step is encoder, heads, momentum encoder and update. A
  part compiled alone may be slower than within the step, where XLA fuses it with other operations.
- How often the step is traced in the first steps of a real training run. It must be once.
- The overhead of `jaxclr.training.train` per step, with a model so small that the host matters:
  epochs of the loop alternate with as many calls of the same step in a bare loop on one batch, so
  that both see the same load.
"""

import dataclasses
import functools
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
import tyro
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from measure import Output, machine, on_devices, run, spread, verdict

from jaxclr import training
from jaxclr.affinity.collectives import row_ids
from jaxclr.augment import AUGMENTATIONS
from jaxclr.data import Data
from jaxclr.encoders import Mlp, SmallConv
from jaxclr.methods import MomentumEncoder, Outputs, SimAffinity, StopGradient
from jaxclr.runs.config import Config
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.batches import Batch, resident, resident_batches
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.state import State
from jaxclr.steps.step import observe
from jaxclr.steps.views import take_views
from jaxclr.training.loop import compile_step
from jaxclr.training.session import Session

Array = jax.Array

LOOP_BAR_MS = 0.5  # most that the loop may add to a step
QUIET = rich.console.Console(file=io.StringIO())
# Where what the objective sees lies: rows on the devices that have them, the rest on all.
OUTPUT_SPECS = Outputs(
    embeddings=P(AXIS),
    predictions=P(AXIS),
    targets=P(AXIS),
    representations=P(AXIS),
    labels=P(AXIS),
    indices=P(AXIS),
    params=P(),
    key=P(),
    step=P(),
    epoch=P(),
    progress=P(),
    patches=P(AXIS),
    target_patches=P(AXIS),
    masks=P(AXIS),
)


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Time of a training step, by part, and the overhead of the training loop."""

    experiment: tyro.conf.Positional[pathlib.Path] = pathlib.Path(__file__).parents[1] / "digits.py"
    """Experiment file."""

    method: str | None = None
    """Another method than the file's own."""

    batch_size: int | None = None
    """Another batch size than the file's own."""

    random_images: tuple[int, int, int, int] | None = None
    """N H W C: so many images of noise in place of the data of the experiment."""

    repeats: int = 9
    """Repeats of each measurement of the step."""

    steps: int = 20
    """Steps in a repeat."""

    loop_repeats: int = 30
    """Repeats of the measurement of the loop, an epoch of the tiny model each."""

    traced_steps: int = 10
    """Steps of the training run in which traces are counted."""


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        session = training.open_session(configuration(options, pathlib.Path(folder)))
        record = {
            "machine": machine(),
            "experiment": options.experiment.name,
            "method": type(session.config.method).__name__,
            "batch_size": session.config.batch_size,
            "image_shape": session.dataset.train.examples.shape[1:],
            "repeats": options.repeats,
            "loop_repeats": options.loop_repeats,
            "step": measure_step(session, repeats=options.repeats, steps=options.steps),
            "traces": count_traces(session, pathlib.Path(folder) / "run", options.traced_steps),
            "loop": measure_loop(pathlib.Path(folder) / "tiny", repeats=options.loop_repeats),
        }
    options.tell(record, tables(record))


def configuration(options: Options, folder: pathlib.Path) -> Config:
    """The experiment's configuration with the changes of the options."""
    config = load_experiment(options.experiment, method=options.method)
    if options.batch_size is not None:
        config = dataclasses.replace(config, batch_size=options.batch_size)
    if options.random_images is not None:
        images = np.random.default_rng(0).integers(0, 256, options.random_images, np.uint8)
        path = folder / "noise.npz"
        np.savez(path, images=images)
        data = Data(source=f"npz:{path}", test_fraction=0.0, memory_limit=1e6)
        config = dataclasses.replace(config, data=data)
    return dataclasses.replace(config, evaluate_every=0)


def measure_step(session: Session, *, repeats: int, steps: int) -> dict[str, Any]:
    """Milliseconds of the whole step and of its parts, whose repeats alternate."""
    batch = next(batches(session))
    calls = {
        "whole": step_call(session, batch),
        "augmentation": augmentation_call(session, batch),
        "loss": loss_call(session, batch),
    }
    started = time.perf_counter()
    jax.block_until_ready(calls["whole"]())
    compile_seconds = time.perf_counter() - started
    for call in calls.values():
        jax.block_until_ready(call())
    timed = functools.partial(run, times=steps, wait_for_each=one_at_a_time(session))
    rounds = [{name: timed(call) for name, call in calls.items()} for _ in range(repeats)]
    for round_ in rounds:
        round_["rest"] = round_["whole"] - round_["augmentation"] - round_["loss"]
    parts = ("augmentation", "loss", "rest")
    return {
        "images_per_second": spread(1e3 * session.config.batch_size / r["whole"] for r in rounds),
        **{f"{name}_ms": spread(r[name] for r in rounds) for name in ("whole", *parts)},
        **{f"{name}_share": spread(r[name] / r["whole"] for r in rounds) for name in parts},
        "first_call_seconds": round(compile_seconds, 2),
    }


def step_call(session: Session, batch: Batch) -> Callable[[], Any]:
    """Calls the step on one batch, from the state that the call before left."""
    return carried(compile_step(session), session.init_state(), batch)


def carried(
    program: Callable[..., tuple[State, Any]], state: State, *arguments: Any
) -> Callable[[], Any]:
    """Calls a program on the state that the call before left."""

    def call() -> Any:
        nonlocal state
        state, metrics = program(state, *arguments)
        return metrics

    return call


def augmentation_call(session: Session, batch: Batch) -> Callable[[], Any]:
    """Takes the views of one batch, and nothing else."""

    def views(step: Array, images: Array) -> tuple[Array, ...]:
        return take_views(step, images, row_ids(images, AXIS), recipe=session.recipe)

    mapped = on_devices(views, session.mesh, (P(), P(AXIS)), P(AXIS))
    step = jax.device_put(jnp.zeros((), jnp.int32), NamedSharding(session.mesh, P()))
    return lambda: mapped(step, batch.examples)


def loss_call(session: Session, batch: Batch) -> Callable[[], Any]:
    """The loss and its gradient at the objective's inputs in the first step."""
    state = session.init_state()
    out = observation(session.recipe, session.mesh)(state, batch)
    mapped = loss_and_gradient(session.recipe, session.mesh)
    return lambda: mapped(out, state.method_state)


def observation(recipe: Recipe, mesh: Mesh) -> Callable[[State, Batch], Outputs]:
    """The objective's inputs in a step."""
    seen = functools.partial(observe, recipe=recipe, axis_name=AXIS)
    return on_devices(seen, mesh, (P(), P(AXIS)), OUTPUT_SPECS)


def loss_and_gradient(recipe: Recipe, mesh: Mesh) -> Callable[[Outputs, Any], Any]:
    """The loss of the outputs and a state of the method, with its gradients as in the step."""
    method = recipe.method

    def share(trained: Mapping[str, Any], out: Outputs, state: Any) -> Array:
        embeddings = trained["embeddings"]
        match method.target:
            case MomentumEncoder():
                targets = out.targets
            case StopGradient():
                targets = jax.lax.stop_gradient(embeddings)
            case _:
                targets = embeddings
        seen = {"predictions": embeddings, "targets": targets, **trained}
        return method.objective(out._replace(**seen), state, AXIS)

    def one_device(out: Outputs, state: Any) -> tuple[Array, Any, Any]:
        names = ["embeddings", "params"]
        names += ["predictions"] if method.predictor is not None else []
        trained = {name: getattr(out, name) for name in names}
        value, gradients = jax.value_and_grad(share)(trained, out, state)
        own = jax.lax.pmean(gradients.pop("params"), AXIS)
        return jax.lax.pmean(value, AXIS), gradients, own

    return on_devices(one_device, mesh, (OUTPUT_SPECS, P()), (P(), P(AXIS), P()))


def count_traces(session: Session, folder: pathlib.Path, steps: int) -> int:
    """How often the step is traced in training steps that include logs and a checkpoint."""
    traces = 0
    schedule = session.recipe.schedule

    def counting(
        step: Array,
    ) -> Array:  # the step asks for its learning rate, to report it, once a trace
        nonlocal traces
        traces += 1
        return schedule(step)

    counted = session._replace(recipe=session.recipe._replace(schedule=counting))
    new_run = RunFolder(folder)
    new_run.create(session.config, overwrite=False)
    training.train(counted, new_run, console=QUIET, stop_after=steps)
    return traces


def measure_loop(folder: pathlib.Path, *, repeats: int) -> dict[str, Any]:
    """Milliseconds of a step in `train` and in a bare loop, with a tiny model on digits.

    `train` calls an evaluation after each epoch, once the state is ready. Here it takes the time,
    and has the bare loop run as many steps as an epoch has. The first epoch, which compiles, does
    not count, and no checkpoint falls within an epoch; logging the evaluation, once an epoch, does.
    """
    session = training.open_session(tiny_config(epochs=repeats + 1))
    per_epoch, batch = session.steps_per_epoch, next(batches(session))
    bare_call = step_call(session, batch)
    jax.block_until_ready(bare_call())
    in_loop, bare = [], []
    resumed = None

    def take_the_time(*_: Any) -> dict[str, Any]:
        nonlocal resumed
        ready = time.perf_counter()
        if resumed is not None:
            in_loop.append(1e3 * (ready - resumed) / per_epoch)
            bare.append(run(bare_call, per_epoch, wait_for_each=one_at_a_time(session)))
        resumed = time.perf_counter()
        return {}

    new_run = RunFolder(folder)
    new_run.create(session.config, overwrite=False)
    state = training.train(session, new_run, console=QUIET, evaluate=take_the_time)
    added = [loop - alone for loop, alone in zip(in_loop, bare, strict=True)]
    return {
        "in_train_ms": spread(in_loop),
        "bare_ms": spread(bare),
        "added_ms": spread(added),
        "bar_ms": LOOP_BAR_MS,
        "arrays_in_state": len(jax.tree.leaves(state)),
        "steps_per_repeat": per_epoch,
    }


def tiny_config(*, epochs: int) -> Config:
    """A model of 67 arrays whose step takes about a millisecond, so that the host's part shows."""
    method = SimAffinity(
        projector=Mlp(layers=2, hidden=8, out=8, last_norm=True),
        predictor=Mlp(layers=3, hidden=8, out=8),
    )
    return Config(
        method=method,
        encoder=SmallConv(widths=(4, 4)),
        data=Data(source="digits"),
        augmentation=AUGMENTATIONS["digits"],
        epochs=epochs,
        batch_size=8 * jax.device_count(),
        warmup_epochs=0.0,
        log_every=10**9,
        evaluate_every=1,
        checkpoint_every=10**9,
    )


def batches(session: Session) -> Iterator[Batch]:
    """The batches of a run."""
    return resident_batches(
        resident(session.dataset.train, session.mesh),
        batch_size=session.config.batch_size,
        seed=session.config.seed,
        mesh=session.mesh,
    )


def one_at_a_time(session: Session) -> bool:
    """Whether steps must not overlap, as in `train`: virtual CPU devices could deadlock."""
    return session.mesh.devices.flat[0].platform == "cpu" and session.mesh.size > 1


def tables(record: dict[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    step, loop = record["step"], record["loop"]
    shape = "x".join(map(str, record["image_shape"]))
    parts = rich.table.Table(
        f"{record['method']} ({record['experiment']}), batch {record['batch_size']} of {shape}",
        "ms a step: median (quartiles)",
        "share of the step",
    )
    parts.add_row("whole step", str(step["whole_ms"]), "")
    for name, meaning in (
        ("augmentation", "augmentation, all views"),
        ("loss", "loss and its gradient"),
        ("rest", "the rest: encoder, heads, update"),
    ):
        parts.add_row(meaning, str(step[f"{name}_ms"]), f"{step[f'{name}_share'].median:.1%}")
    parts.add_row("images per second", str(step["images_per_second"]), "")
    parts.add_row("first call, with compilation", f"{step['first_call_seconds']} s", "")
    parts.add_row("traces of the step in a run", f"{record['traces']} (must be 1)", "")
    added = rich.table.Table(
        f"tiny model, {loop['arrays_in_state']} arrays in its state",
        "ms a step: median (quartiles)",
    )
    added.add_row("in train()", str(loop["in_train_ms"]))
    added.add_row("in a bare loop", str(loop["bare_ms"]))
    met = verdict(loop["added_ms"].median, most=loop["bar_ms"])
    added.add_row("added by train()", f"{loop['added_ms']}; {met}")
    return [parts, added]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
