"""`jaxclr train` and `jaxclr resume`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import rich.console
import tyro

from jaxclr import api
from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.cli.console import (
    STATUSES,
    asked_help,
    count,
    named,
    parse,
    pop_option,
    print_text,
)
from jaxclr.cli.opening import open_run
from jaxclr.data import Data
from jaxclr.encoders import ENCODERS
from jaxclr.errors import UserError
from jaxclr.methods import METHODS
from jaxclr.paths import expanded
from jaxclr.processes import runtime
from jaxclr.processes.runtime import Distributed
from jaxclr.runs.buckets import copied
from jaxclr.runs.config import Config
from jaxclr.runs.experiments import Experiment, load_experiment
from jaxclr.runs.loggers import LOGGERS, Logger
from jaxclr.steps.optimizers import OPTIMIZERS

# Parts of a configuration that can be replaced by name; the experiment itself builds the method.
CHOICES: dict[str, Mapping[str, Any]] = {
    "encoder": ENCODERS,
    "augmentation": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
}


EXTENDED = (
    "From the newest checkpoint on, the learning rate and all other schedules are those of the "
    "longer run: the cosine is stretched, so the rate rises at that step. config.json records the "
    "step under extensions."
)

# Options of `jaxclr train` that select parts, before the options of these parts are known.
PARTS = {
    "EXPERIMENT.py": "A Python file whose config() returns a jaxclr.Config.",
    "--method NAME": "Objective, such as sim_trace; see `jaxclr list methods`.",
    "--encoder NAME": "Network, such as resnet18; see `jaxclr list encoders`.",
    "--augmentation NAME": "Views of each image; see `jaxclr list augmentations`.",
    "--optimizer NAME": "See `jaxclr list optimizers`.",
    "--views N": "The first N views of the augmentation, repeated if there are fewer.",
}
# Those that --help shows first.
FIRST = (
    "--method",
    "--encoder",
    "--data.source",
    "--data.dir",
    "--epochs",
    "--batch-size",
    "--optimizer.learning-rate",
    "--seed",
    "--out",
    "--overwrite",
    "--init",
)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `jaxclr train`."""

    config: Annotated[Config, tyro.conf.arg(name="")]

    out: pathlib.Path | None = None
    """Folder of the run; None: runs/EXPERIMENT-METHOD-SEED."""

    init: pathlib.Path | None = None
    """Start from the encoder of a run's folder or of a file of weights (as in `jaxclr import`)."""

    init_heads: bool = False
    """With --init: start from its projector, predictor and other parameters too, if they fit."""

    overwrite: bool = False
    """Replace the run in that folder, if there is one, instead of continuing it."""

    log: tuple[Literal["wandb"], ...] = ()
    """Where to send the metrics, beside metrics.jsonl and TensorBoard; wandb: Weights & Biases."""

    profile: str | None = None
    """START:STOP: profile steps START to STOP - 1 into RUN/profile; step 0 includes compilation."""

    distributed: Distributed = Distributed()
    """Several processes, each started by the same command."""


class TrainRequest(NamedTuple):
    """The parsed arguments of `jaxclr train`."""

    options: TrainOptions
    experiment: Experiment
    out: pathlib.Path


def train(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Train an encoder: jaxclr train EXPERIMENT.py [--method NAME] [--field value ...]"""
    options, experiment, out = runtime.run_on_all(lambda: _parse_train(arguments))
    run = api.train(
        options.config,
        out,
        init=options.init,
        init_heads=options.init_heads,
        overwrite=options.overwrite,
        profile=options.profile,
        loggers=_loggers(options.log),
        experiment=experiment,
        console=console,
    )
    _next(run, console)


def resume(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Continue a run from its newest checkpoint: jaxclr resume RUN [--epochs N]"""
    options = parse(
        RunOptions,
        arguments,
        "resume",
        description="Continue a run from its newest checkpoint, or evaluate it again if it is "
        f"finished. With more epochs or steps it is extended. {EXTENDED}\n\n{STATUSES}",
    )
    run = open_run(options.run, console, trust=options.trust)
    own, data = run.config.data, None
    if moved := {name: value for name, value in vars(options.data).items() if value is not None}:
        data = dataclasses.replace(own, **moved) if isinstance(own, Data) else Data()
    run.resume(
        data=data,
        epochs=options.epochs,
        steps=options.steps,
        loggers=_loggers(options.log),
        console=console,
    )
    _next(run, console)


def _parse_train(arguments: Sequence[str]) -> TrainRequest:
    files = [a for a in arguments[:1] if not a.startswith("-")]
    arguments = list(arguments[len(files) :])
    names = {part: pop_option(arguments, part) for part in ("method", "views", *CHOICES)}
    if not files and asked_help(arguments) is None:
        raise UserError(
            "Give an experiment: jaxclr train EXPERIMENT.py, for instance experiments/digits.py."
        )
    if files:
        config = load_experiment(copied(expanded(files[0])), method=names["method"])
    else:
        # For --help without an experiment.
        config = Config(method=named("method", names["method"] or "sim_affinity", METHODS)())
    chosen = {
        part: named(part, name, choices)
        for part, choices in CHOICES.items()
        if (name := names[part]) is not None
    }
    chosen = {part: of() if isinstance(of, type) else of for part, of in chosen.items()}
    if names["views"] is not None:
        augmentation = chosen.get("augmentation", config.augmentation)
        chosen["augmentation"] = with_views(augmentation, count("views", names["views"]))
    config = dataclasses.replace(config, **chosen)
    options = parse(
        TrainOptions,
        arguments,
        "train EXPERIMENT.py",
        default=TrainOptions(config),
        description="Train an encoder, or continue an interrupted run: the same command goes on "
        "from its newest checkpoint. Defaults below are those of "
        f"{files[0] if files else 'jaxclr.Config; with EXPERIMENT.py, those of the experiment'}."
        "\n\nWhen a run goes on, frequencies (log, observe, evaluate, checkpoint), memory limits "
        f"and workers may be others, and more epochs or steps extend it. {EXTENDED}\n\n{STATUSES}",
        before=PARTS,
        first=FIRST,
    )
    if options.config.steps is not None and any(
        one == "--epochs" or one.startswith("--epochs=") for one in arguments
    ):
        raise UserError(
            f"--epochs has no effect on a run of --steps {options.config.steps}; give one of them "
            "(--steps None for epochs)."
        )
    kind = type(options.config.method)
    method = next((name for name, known in METHODS.items() if known is kind), kind.__name__)
    folder = f"runs/{pathlib.Path(files[0]).stem}-{method}-{options.config.seed}"
    experiment = Experiment(copied(expanded(files[0])), names["method"])
    return TrainRequest(options, experiment, options.out or pathlib.Path(folder))


@dataclasses.dataclass(frozen=True)
class MovedData:
    """A place of data."""

    source: str | None = None
    """Their source, such as folder:PATH; None: as before."""

    dir: str | None = None
    """Folder of the prepared TFDS data sets; None: as before."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of `jaxclr resume`."""

    run: tyro.conf.Positional[Annotated[pathlib.Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of the run."""

    data: MovedData = MovedData()
    """Where the run's own data are now, if they were moved."""

    epochs: int | None = None
    """Epochs of the whole run; None: as before. More extend it."""

    steps: int | None = None
    """Steps of the whole run, in place of epochs; None: as before. More extend it."""

    log: tuple[Literal["wandb"], ...] = ()
    """Where to send the metrics, beside metrics.jsonl and TensorBoard; wandb: Weights & Biases."""

    trust: bool = False
    """Run the code stored in the folder, even if another user created it."""

    distributed: Distributed = Distributed()
    """Several processes, each started by the same command."""


def _loggers(names: Sequence[str]) -> tuple[Logger, ...]:
    return tuple(LOGGERS[name]() for name in names)


def _next(run: api.Run, console: rich.console.Console) -> None:
    print_text(
        console,
        f"The run is in {run.folder}: configuration, metrics.jsonl, TensorBoard events, "
        "checkpoints, snapshots, evaluation.json.\n"
        "Next: another objective with --method (`jaxclr list methods`), other settings (`jaxclr "
        f"train EXPERIMENT.py --help`), or other protocols with `jaxclr evaluate {run.folder}`.\n"
        f"Report: {run.folder / 'report.html'}",
    )
