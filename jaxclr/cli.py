"""The command `jaxclr`: train, resume, evaluate, report, list."""

import dataclasses
import functools
import inspect
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

# JAX's Cholesky and solves on CPUs call OpenBLAS, whose threads wait for each other where devices share the cores: a step
# of SimTrace on two virtual devices took 178 ms with them and 9 ms without. It reads this once, when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import rich.box
import rich.console
import rich.markup
import rich.table
import tyro

from jaxclr import errors, losses, training
from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.data import SOURCES, Stream
from jaxclr.encoders import ENCODERS
from jaxclr.errors import UserError
from jaxclr.losses.catalogue import LOSSES
from jaxclr.losses.catalogue import paper as paper_of
from jaxclr.methods import METHODS, Method
from jaxclr.report.command import report
from jaxclr.training import OPTIMIZERS, Config, Run, Session
from jaxclr.training.checkpoints import Checkpoints
from jaxclr.training.config import differences
from jaxclr.training.evaluate import evaluate, labelled_splits, monitor, table
from jaxclr.training.experiments import load_experiment
from jaxclr.training.own_methods import method_name
from jaxclr.training.signals import Stopped

# Parts of a configuration that are chosen by name before their fields are set; the method is the experiment's to make.
CHOICES: dict[str, Mapping[str, Any]] = {
    "encoder": ENCODERS,
    "augmentation": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
}
STATUSES = (
    f"Exit status: 0 when done; 2 for what you can mend, a full disk included; {Stopped.STATUS} when SIGTERM or SIGINT (Ctrl-C) "
    "stopped training after a step, with a checkpoint; 130 at a second Ctrl-C."
)
FEW_IMAGES = 10_000  # up to here raw pixels and the untrained encoder are probed after training too


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `jaxclr train`."""

    config: Annotated[Config, tyro.conf.arg(name="")]

    out: pathlib.Path | None = None
    """Folder of the run; None: runs/EXPERIMENT-METHOD-SEED."""

    overwrite: bool = False
    """Replace the run in that folder, if there is one, instead of continuing it."""


def train(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Pre-train: jaxclr train EXPERIMENT.py [--method NAME] [--field value ...]"""
    files = [a for a in arguments[:1] if not a.startswith("-")]
    arguments = list(arguments[len(files) :])
    names = {part: _take(arguments, part) for part in ("method", "views", *CHOICES)}
    if not files and not {"-h", "--help"} & set(arguments):
        raise UserError(
            "Give an experiment: jaxclr train EXPERIMENT.py, for instance experiments/digits.py."
        )
    if files:
        config = load_experiment(pathlib.Path(files[0]), method=names["method"])
    else:
        # Only --help comes this far without an experiment.
        config = Config(method=_named("method", names["method"] or "sim_affinity", METHODS)())
    chosen = {
        part: _named(part, names[part], choices)
        for part, choices in CHOICES.items()
        if names[part] is not None
    }
    chosen = {part: of() if isinstance(of, type) else of for part, of in chosen.items()}
    if names["views"] is not None:
        augmentation = chosen.get("augmentation", config.augmentation)
        chosen["augmentation"] = with_views(augmentation, _count("views", names["views"]))
    config = dataclasses.replace(config, **chosen)
    options = _parse(
        TrainOptions,
        arguments,
        "train EXPERIMENT.py",
        default=TrainOptions(config),
        description="Pre-train an encoder. --method, --encoder, --augmentation and --optimizer NAME choose a part by name "
        "(`jaxclr list`); its fields below are then those of the choice. --views N takes the first N views of the "
        "augmentation, starting over after its last. The same command continues the run that it started, from its newest "
        f"checkpoint, until that is finished. {STATUSES}",
    )
    config = options.config
    method = method_name(config.method)
    run = Run(options.out or pathlib.Path(f"runs/{pathlib.Path(files[0]).stem}-{method}-{config.seed}"))
    session = training.open_session(config)
    with run.locked():
        if run.exists and not options.overwrite:
            _check_continues(run, session)
        else:
            run.create(session.config, overwrite=options.overwrite)
        _train(session, run, console)


def resume(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Continue a run from its newest checkpoint: jaxclr resume RUN"""
    options = _parse(
        RunOptions,
        arguments,
        "resume",
        description=f"Continue a run from its newest checkpoint, or probe it again if it is finished. {STATUSES}",
    )
    run = Run(options.run)
    session = training.open_session(run.config())
    with run.locked():
        _train(session, run, console)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of `jaxclr resume`."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `jaxclr evaluate`."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""

    baselines: bool = True
    """Also probe raw pixels and the same encoder untrained."""


def evaluate_run(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Probe the newest checkpoint of a run: jaxclr evaluate RUN"""
    options = _parse(
        EvaluateOptions,
        arguments,
        "evaluate",
        description="kNN and linear probes of a run's newest checkpoint; writes evaluation.json.",
    )
    run = Run(options.run)
    config = run.config()
    if not run.checkpoints.is_dir():
        raise UserError(f"{run.folder} has no checkpoint yet; continue it with `jaxclr resume {run.folder}`.")
    session = training.open_session(config)
    labelled_splits(session.dataset)
    with run.locked():
        with Checkpoints(run.checkpoints) as checkpoints:
            state = checkpoints.restore(session.state_shape(), say=functools.partial(_say, console))
        _evaluate(session, run, state, console, baselines=options.baselines)


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Options of `jaxclr list`."""

    what: tyro.conf.Positional[str] = "all"
    """methods, losses, encoders, augmentations, optimizers, data or all."""


def list_names(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Show methods, losses, encoders, augmentations, optimizers and data sources: jaxclr list [WHAT]"""
    options = _parse(ListOptions, arguments, "list", description="What can be chosen by name.")
    tables = {
        "methods": {name: f"{_first_line(kind)} {_needs(kind)}" for name, kind in METHODS.items()},
        "encoders": {name: str(spec) for name, spec in ENCODERS.items()},
        "augmentations": {
            name: f"{len(recipe.views)} views: "
            + ", ".join(sorted({type(view).__name__ for view in recipe.views}))
            for name, recipe in AUGMENTATIONS.items()
        },
        "optimizers": {name: _first_line(kind) for name, kind in OPTIMIZERS.items()},
        "data": {name: _first_line(source) for name, source in SOURCES.items()},
    }
    if options.what not in ("all", "losses") and options.what not in tables:
        raise errors.unknown("list", options.what, ["all", "losses", *tables])
    for title, rows in tables.items():
        if options.what in ("all", title):
            shown = rich.table.Table(title=title, title_justify="left", show_header=False)
            for row in rows.items():
                shown.add_row(*map(rich.markup.escape, row))
            console.print(shown)
    if options.what in ("all", "losses"):
        console.print(_losses_table())


def _losses_table() -> rich.table.Table:
    """Every loss: what it needs, costs and computes over the global batch."""
    title = "losses (B images of D dimensions, V views)"
    shown = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for column in ("", "arXiv", "cost"):
        shown.add_column(column, no_wrap=True)
    for column in ("needs", "over the global batch"):
        shown.add_column(column)
    for name, facts in LOSSES.items():
        paper = paper_of(getattr(losses, name))
        shown.add_row(name, paper, facts.cost, facts.needs, facts.together)
    return shown


COMMANDS: dict[str, Callable[[Sequence[str], rich.console.Console], None]] = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate_run,
    "report": report,
    "list": list_names,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; what ends it early is one sentence on standard error and an exit status (`STATUSES`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Orbax logs what it also raises, and that is told in a sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    console = rich.console.Console()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            console.print("jaxclr: self-supervised learning on the global affinity matrix\n")
            for command in COMMANDS.values():
                _say(console, f"  {inspect.getdoc(command)}")
            console.print("\n`jaxclr COMMAND --help` shows every option and its default.")
            return
        if arguments[0] not in COMMANDS:
            raise errors.unknown("command", arguments[0], COMMANDS)
        COMMANDS[arguments[0]](arguments[1:], console)
    except UserError as error:
        _complain(f"error: {error}")
        sys.exit(2)
    except Stopped as stopped:
        _complain(str(stopped))
        sys.exit(Stopped.STATUS)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.stdout.flush()
        # At once: a checkpoint that is being written has no name yet, and those before it are whole.
        os._exit(130)


def _train(session: Session, run: Run, console: rich.console.Console) -> None:
    config, train = session.config, session.dataset.train
    shape = "" if isinstance(train, Stream) else f" of {'x'.join(map(str, train.images.shape[1:]))}"
    _say(
        console,
        f"{type(config.method).__name__} on {session.dataset.name}: {train.size} images{shape}, "
        f"{session.steps} steps of {config.batch_size} "
        f"on {session.mesh.size} {session.mesh.devices.flat[0].device_kind} device(s)",
    )
    for note in session.notes:
        _say(console, note)
    if session.dataset.skipped:
        names = session.dataset.skipped
        _say(console, f"{len(names)} unreadable file(s) left out: {', '.join(names[:5])}{' ...' * (len(names) > 5)}")
    state = training.train(session, run, console=console, evaluate=monitor)
    try:
        labelled_splits(session.dataset)
    except UserError as error:
        _say(console, f"Not evaluated: {error}")
    else:
        _evaluate(session, run, state, console, baselines=train.size <= FEW_IMAGES)
    # Matplotlib takes as long to start as all else: only now.
    from jaxclr.report.page import write_report

    write_report([run.folder], run.report)
    _say(
        console,
        f"The run is in {run.folder}: configuration, metrics.jsonl, TensorBoard events, checkpoints, snapshots, evaluation.json.\n"
        f"Next: another objective with --method (`jaxclr list methods`), other settings (`jaxclr train EXPERIMENT.py --help`), "
        f"or the probes again with `jaxclr evaluate {run.folder}`.\n"
        f"Pictures of what was learned: {run.report}",
    )


def _evaluate(
    session: Session,
    run: Run,
    state: training.State,
    console: rich.console.Console,
    *,
    baselines: bool,
) -> None:
    record = evaluate(session, state, baselines=baselines)
    run.write_evaluation(record)
    console.print(table(record))


def _say(console: rich.console.Console, text: str) -> None:
    """Prints plain text whose lines a terminal wraps, so that paths and commands can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _complain(text: str) -> None:
    _say(rich.console.Console(stderr=True), text)


def _check_continues(run: Run, session: Session) -> None:
    """Refuses to continue a run of another configuration, or one that is finished."""
    changed = differences(run.config(), session.config)
    if changed:
        raise UserError(
            f"{run.folder} is a run of another configuration: {'; '.join(changed)}. Continue it as it is with "
            f"`jaxclr resume {run.folder}`, replace it with --overwrite, or give another folder with --out."
        )
    try:
        labelled_splits(session.dataset)
        labelled = True
    except UserError:
        labelled = False
    if run.finished(session.steps, evaluated=labelled):
        raise UserError(
            f"{run.folder} holds a run of this configuration already, and it is finished. Probe it again with "
            f"`jaxclr evaluate {run.folder}`, replace it with --overwrite, or give another folder with --out."
        )


def _parse(kind: type, arguments: Sequence[str], command: str, *, description: str, default: Any = None) -> Any:
    extra = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        prog=f"jaxclr {command}",
        args=list(arguments),
        description=description,
        config=(tyro.conf.AvoidSubcommands,),
        **extra,
    )


def _take(arguments: list[str], part: str) -> str | None:
    """Removes `--part NAME` or `--part=NAME` from the arguments; the last one counts."""
    name, index = None, 0
    while index < len(arguments):
        if arguments[index] == f"--{part}":
            if index + 1 == len(arguments):
                raise UserError(f"--{part} needs a name; see `jaxclr list`.")
            name = arguments[index + 1]
            del arguments[index : index + 2]
        elif arguments[index].startswith(f"--{part}="):
            name = arguments.pop(index).partition("=")[2]
        else:
            index += 1
    return name


def _named(kind: str, name: str, choices: Mapping[str, Any]) -> Any:
    if name not in choices:
        raise errors.unknown(kind, name, choices)
    return choices[name]


def _count(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--{name} must be a whole number of at least 1, got {text!r}.")
    return int(text)


def _needs(kind: type[Method]) -> str:
    """What a method asks of the data, in brackets."""
    views = f"{kind.views}{' or more' * kind.more_views} view{'s' * (kind.views > 1 or kind.more_views)}"
    return f"[{views}{', labels' * kind.needs_labels}]"


def _first_line(thing: Any) -> str:
    return inspect.getdoc(thing).splitlines()[0]
