"""Every method for a few steps on the embedded digits: loss, signs of collapse, and time.

    python experiments/benchmarks/methods.py [--steps 30] [--only NAME ...] [--out FILE.json]

The recipe is that of experiments/digits.py. Total variance and effective rank are those of the unit
embeddings of a batch of augmented images after training, norms in training mode: embeddings that
collapse to a point have no variance, those that collapse to a line have rank 1. Seconds are those
of the training loop, compilation included.
"""

import dataclasses
import io
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
import rich.console
import rich.table
import tyro
from measure import Output, machine
from step import batches, observation

from jaxclr import training
from jaxclr.evaluation import effective_rank, total_variance
from jaxclr.methods import METHODS, MomentumEncoder
from jaxclr.runs.config import Config
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.state import State
from jaxclr.training.session import Session

DIGITS = pathlib.Path(__file__).parents[1] / "digits.py"
ENDS = 5  # the first and the last loss are the mean of so many steps


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Every method for a few steps on the embedded digits."""

    steps: int = 30
    """Steps of each."""

    only: tuple[str, ...] = tuple(METHODS)
    """Methods."""


def main(options: Options) -> None:
    results = {}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            session = training.open_session(configuration(name, options.steps))
            results[name] = measure(session, pathlib.Path(folder) / "run", options.steps)[1]
    record = {"machine": machine(), "steps": options.steps, "methods": results}
    options.tell(record, [table(record)])


def configuration(name: str, steps: int) -> Config:
    """The digits recipe for a number of steps, each logged.

    Learning rate and momentum encoder are set for so short a run.
    """
    config = load_experiment(DIGITS, method=name)
    if isinstance(config.method.target, MomentumEncoder):
        # A longer average would leave the momentum encoder, and so the queue, as initialized.
        momentum = min(config.method.target.momentum, 1 - 3 / steps)
        target = dataclasses.replace(config.method.target, momentum=momentum)
        config = dataclasses.replace(config, method=config.method.replace(target=target))
    return dataclasses.replace(
        config,
        epochs=steps,
        warmup_epochs=0.0,
        log_every=1,
        observe_every=0,
        evaluate_every=0,
        checkpoint_every=steps,
    )


def measure(session: Session, folder: pathlib.Path, steps: int) -> tuple[State, dict[str, float]]:
    """The state after training, first and last loss, spread of the embeddings, and seconds."""
    run = RunFolder(folder)
    run.create(session.config, overwrite=False)
    started = time.perf_counter()
    state = training.train(
        session, run, console=rich.console.Console(file=io.StringIO()), stop_after=steps
    )
    seconds = time.perf_counter() - started
    lines = map(json.loads, run.metrics.read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    embeddings = embed(session, state)
    return state, {
        "first_loss": statistics.mean(losses[:ENDS]),
        "last_loss": statistics.mean(losses[-ENDS:]),
        "effective_rank": float(effective_rank(embeddings)),
        "total_variance": float(total_variance(embeddings)),
        "seconds": round(seconds, 1),
    }


def embed(session: Session, state: State) -> jax.Array:
    """Embeddings [B, D] of the first view of a batch, as the next step would see them."""
    seen = observation(session.recipe, session.mesh)(state, next(batches(session)))
    return jax.device_put(seen.embeddings[0], jax.devices()[0])


def table(record: Mapping[str, Any]) -> rich.table.Table:
    """The figures for a person to read."""
    shown = rich.table.Table(
        f"{record['steps']} steps on digits",
        "loss: first",
        "last",
        "effective rank",
        "total variance",
        "seconds",
    )
    for name, result in record["methods"].items():
        shown.add_row(
            name,
            *(f"{result[key]:.3g}" for key in ("first_loss", "last_loss")),
            f"{result['effective_rank']:.1f}",
            f"{result['total_variance']:.2f}",
            f"{result['seconds']:.0f}",
        )
    shown.add_section()
    shown.add_row(
        "all", "", "", "", "", f"{sum(r['seconds'] for r in record['methods'].values()):.0f}"
    )
    return shown


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
