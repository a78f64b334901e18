"""Fast CIFAR-10 pre-training: ResNet-18, 200 epochs at batch 512 in bfloat16, one accelerator.

    python experiments/speedrun_cifar10.py --make-npz DIR      once; DIR has TFDS's cifar10
    python experiments/speedrun_cifar10.py                     SimCLR, one seed
    python experiments/speedrun_cifar10.py --methods simclr sim_affinity sim_affinity_no_symmetry \
        sim_whitening sim_trace sim_trace_plain --seeds 0 1 2 --minutes 9    the table; repeat it

The step, the views, the recipes of cifar10.py and kNN are those of `jaxclr train`, but the host
starts epochs, not steps: images live on the device, an epoch is one program, kNN on the test split
is another, and the host reads the figures of an epoch while the next one runs. Seconds are the time
from opening the data to the last kNN, including compilation, kNN of every epoch and, in a run that
was stopped, restoring; the linear probe is not included. Kernels are not deterministic: a seed does
not repeat to the last bit on a GPU.

A run that --minutes stops keeps its state, and the same command resumes it. Every finished run has
a file in OUT/results, and OUT/table.md is their table.

Time: not run yet. Accuracy: not run yet.
"""

import dataclasses
import functools
import json
import math
import pathlib
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import rich.console
import tyro
from benchmarks.cifar10_npz import pack, pixels, unpack
from benchmarks.measure import machine
from benchmarks.speedrun_table import write_table

from jaxclr import training
from jaxclr.data import Data
from jaxclr.evaluation import linear_probe
from jaxclr.evaluation.resident import compile_knn, representations
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.experiments import load_experiment
from jaxclr.steps.batches import resident
from jaxclr.steps.refresh import compile_refresh, refresh_is_due
from jaxclr.training import Config, Session, State

CIFAR10 = pathlib.Path(__file__).parent / "cifar10.py"
K, TEMPERATURE = 200, 0.1  # lightly's kNN
NO_SYMMETRY = "_no_symmetry"  # ends the name of a method without its symmetric term


@dataclasses.dataclass(frozen=True)
class Options:
    """CIFAR-10 pre-training against the clock."""

    data: pathlib.Path = pathlib.Path("build/cifar10.npz")
    """The images; decoded from --packed if there is no such file."""

    packed: pathlib.Path = pathlib.Path("build/cifar10.packed.npz")
    """The images as they were stored: what to take along to another machine."""

    make_npz: pathlib.Path | None = None
    """Folder where TensorFlow Datasets has prepared cifar10: write both files from it, and end."""

    methods: tuple[str, ...] = ("simclr",)
    """Methods; NAME_no_symmetry is a method of the UniCLR family without its symmetric term."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of each."""

    epochs: int = 200
    """Epochs of each run; one in twenty warms up."""

    batch_size: int = 512
    """Images in a step."""

    evaluate_every: int = 1
    """Epochs between kNN evaluations; the last epoch always has one."""

    save_every: int = 50
    """Epochs between checkpoints."""

    minutes: float | None = None
    """Stop, with the state kept, when so many minutes are over."""

    out: pathlib.Path = pathlib.Path("runs/speedrun")
    """Folder for states, results and the table."""

    cache: pathlib.Path | None = pathlib.Path("build/xla-cache")
    """Cache of compiled programs; the record says whether it held any at the start."""


def main(options: Options) -> None:
    if options.make_npz is not None:
        pack(options.make_npz, options.packed)
    if not options.data.is_file() and not options.packed.is_file():
        sys.exit(
            f"There is neither {options.data} nor {options.packed}: write both with --make-npz DIR."
        )
    if options.make_npz is not None or not options.data.is_file():
        unpack(options.packed, options.data)
    if options.make_npz is not None:
        return
    cached = use_cache(options.cache)
    console = rich.console.Console()
    ends = math.inf if options.minutes is None else time.perf_counter() + 60 * options.minutes
    time_is_up = lambda: time.perf_counter() > ends
    facts = {"machine": machine(), "cache": cached, "pixels": pixels(options.data)}
    names = [(name, seed) for seed in options.seeds for name in options.methods]
    configs = {f"{name}-{seed}": configuration(name, seed, options) for name, seed in names}
    done = run_all(configs, options.out, options, facts, say=console.print, time_is_up=time_is_up)
    console.print(write_table(options.out), markup=False, highlight=False, soft_wrap=True)
    console.print("All runs are done." if done else "Time is up; run the same command to resume.")


def use_cache(folder: pathlib.Path | None) -> str:
    """Keeps compiled programs on disk; returns whether there were any."""
    if folder is None:
        return "none"
    warm = folder.is_dir() and any(folder.iterdir())
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return "warm" if warm else "cold"


def configuration(name: str, seed: int, options: Options) -> Config:
    """The recipe of cifar10.py in bfloat16, on the images at hand."""
    method = name.removesuffix(NO_SYMMETRY)
    config = load_experiment(CIFAR10, method=method)
    if method != name:
        config = dataclasses.replace(config, method=config.method.replace(symmetry_weight=0.0))
    return dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, dtype="bfloat16"),
        data=Data(f"npz:{options.data}"),
        epochs=options.epochs,
        warmup_epochs=options.epochs / 20,
        batch_size=options.batch_size,
        seed=seed,
    )


def run_all(
    configs: dict[str, Config],
    out: pathlib.Path,
    options: Options,
    facts: dict[str, Any],
    *,
    say: Callable[[str], None],
    time_is_up: Callable[[], bool],
) -> bool:
    """Runs what has no result yet, in turn; whether all have one at the end."""
    (out / "results").mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        result = out / "results" / f"{name}.json"
        if result.exists():
            continue
        if time_is_up():
            return False
        state = out / "states" / name
        say(f"{name}: {config.epochs} epochs")
        record = train(config, state, options, say=say, time_is_up=time_is_up)
        if record is None:
            return False
        method, _, seed = name.rpartition("-")
        record = {"method": method, "seed": int(seed), **record, **facts}
        result.write_text(json.dumps(record, indent=2) + "\n")
        shutil.rmtree(state)
        say(
            f"{name}: kNN {record['knn']:.4f}, linear {record['linear']:.4f}, "
            f"{record['seconds']:.0f} s"
        )
    return True


def train(
    config: Config,
    folder: pathlib.Path,
    options: Options,
    *,
    say: Callable[[str], None],
    time_is_up: Callable[[], bool],
) -> dict[str, Any] | None:
    """One run, from the state in its folder if there is one; its figures, or None if time was up.

    Raises:
      SystemExit: loss, gradient or update was not finite.
    """
    started = time.perf_counter()
    session = training.open_session(config)
    progress = _read(folder / "progress.json")
    with Checkpoints(folder / "checkpoints", keep=1) as checkpoints:
        fresh = checkpoints.latest is None
        state = (
            session.init_state() if fresh else checkpoints.restore(session.state_shape(), say=say)
        )
        first = int(state.step) // session.steps_per_epoch
        lines = progress["epochs"][:first]
        whole = resident(session.dataset.train, session.mesh)
        test = jax.device_put(session.dataset.test.examples, whole.examples.sharding)
        compiling = time.perf_counter()
        places = training.epoch_indices(session.recipe, session.mesh, first)
        steps = (
            training.compile_steps(session.recipe, session.mesh)
            .lower(state, whole, places)
            .compile()
        )
        knn = (
            compile_knn(session.recipe, session.mesh, session.dataset, k=K, temperature=TEMPERATURE)
            .lower(state, whole.examples, test)
            .compile()
        )
        compile_seconds = progress["compile_seconds"] + time.perf_counter() - compiling
        refreshed = compile_refresh(session.recipe, session.mesh, session.plain_size)
        before, calls = progress["seconds"], progress["calls"] + 1
        running: list[
            tuple[int, dict[str, jax.Array]]
        ] = []  # figures of the epoch that the device is at
        for epoch in range(first + 1, config.epochs + 1):
            if refresh_is_due(session.recipe, (epoch - 1) * session.steps_per_epoch):
                state = refreshed(state, whole.examples)
            state, metrics = steps(
                state, whole, training.epoch_indices(session.recipe, session.mesh, epoch - 1)
            )
            last = epoch == config.epochs
            figures = {"loss": metrics["loss"].mean(), "bad_step": metrics["bad_step"][-1]}
            if last or epoch % options.evaluate_every == 0:
                figures["knn"] = knn(state, whole.examples, test)
            lines += map(_told, running)  # waits for the epoch before, not for this one
            running = [(epoch, figures)]
            late = not last and time_is_up()
            if not (late or last or epoch % options.save_every == 0):
                continue
            lines += map(_told, running)
            running = []
            if not last:
                checkpoints.save(state, int(state.step))
            seconds = before + time.perf_counter() - started
            progress = {
                "epochs": lines,
                "seconds": seconds,
                "compile_seconds": compile_seconds,
                "calls": calls,
            }
            (folder / "progress.json").write_text(json.dumps(progress) + "\n")
            if late:
                say(f"stopped after epoch {epoch} of {config.epochs}, which is saved")
                return None
    config = session.config
    return {
        "knn": lines[-1]["knn"],
        "k": K,
        "temperature": TEMPERATURE,
        "knn_by_epoch": {line["epoch"]: line["knn"] for line in lines if "knn" in line},
        "loss": lines[-1]["loss"],
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seconds": seconds,
        "compile_seconds": compile_seconds,
        "calls": calls,
        **_probe(session, state, whole.examples, test),
    }


def _read(path: pathlib.Path) -> dict[str, Any]:
    """What an earlier call noted beside its newest checkpoint."""
    if path.exists():
        return json.loads(path.read_text())
    return {"epochs": [], "seconds": 0.0, "compile_seconds": 0.0, "calls": 0}


def _told(line: tuple[int, dict[str, jax.Array]]) -> dict[str, float]:
    epoch, figures = line
    values = {name: value.item() for name, value in jax.device_get(figures).items()}
    bad_step = values.pop("bad_step")
    if bad_step >= 0:
        sys.exit(f"Loss, gradient or update was not finite at step {bad_step}.")
    return {"epoch": epoch, **values}


def _probe(
    session: Session, state: State, train_images: jax.Array, test_images: jax.Array
) -> dict[str, float]:
    """The linear probe on all labels."""
    started = time.perf_counter()
    train, test = session.dataset.train, session.dataset.test
    embed = jax.jit(
        functools.partial(representations, recipe=session.recipe, mesh=session.mesh, rows=500)
    )
    train_x, test_x = embed(state, train_images), embed(state, test_images)
    probe = linear_probe(
        train_x, train.labels, test_x, test.labels, classes=len(session.dataset.classes), seed=0
    )
    return {
        "linear": probe.accuracy,
        "l2": probe.l2,
        "probe_seconds": time.perf_counter() - started,
    }


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
