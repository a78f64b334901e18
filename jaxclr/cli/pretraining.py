"""`jaxclr train` and `jaxclr resume`."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import rich.console
import tyro

from jaxclr import training
from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.cli.judging import probe
from jaxclr.cli.words import STATUSES, count, named, parse, say, take
from jaxclr.data import Stream
from jaxclr.encoders import ENCODERS
from jaxclr.errors import UserError
from jaxclr.evaluation.closing import monitor
from jaxclr.evaluation.subject import labelled_splits
from jaxclr.methods import METHODS
from jaxclr.processes import runtime
from jaxclr.processes.runtime import Distributed
from jaxclr.runs.config import Config, differences
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.own_methods import method_name
from jaxclr.steps.optimizers import OPTIMIZERS
from jaxclr.training.profile import steps_to_profile
from jaxclr.training.session import Session

# Parts of a configuration that are chosen by name before their fields are set; the method is the experiment's to make.
CHOICES: dict[str, Mapping[str, Any]] = {
    "encoder": ENCODERS,
    "augmentation": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
}
FEW_IMAGES = 10_000  # up to here raw pixels and the untrained encoder are probed after training too


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Options of `jaxclr train`."""

    config: Annotated[Config, tyro.conf.arg(name="")]

    out: pathlib.Path | None = None
    """Folder of the run; None: runs/EXPERIMENT-METHOD-SEED."""

    overwrite: bool = False
    """Replace the run in that folder, if there is one, instead of continuing it."""

    profile: str | None = None
    """START:STOP, steps to trace into the folder's profile/, for TensorBoard and Perfetto; step 0 is the first and compiles,
    STOP is left out."""
    distributed: Distributed = Distributed()
    """Several processes: each is started by the same command."""


def train(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Pre-train: jaxclr train EXPERIMENT.py [--method NAME] [--field value ...]"""
    options, run = runtime.run_on_all(lambda: _train_options(arguments))
    session = training.open_session(options.config)
    asked = options.profile
    profile = range(0) if asked is None else runtime.run_on_all(lambda: steps_to_profile(asked, session.steps))
    with runtime.hold_on_first(run.locked()):
        runtime.run_on_first(lambda: _create_or_continue(run, session, overwrite=options.overwrite))
        _train(session, run, console, profile=profile)


def _train_options(arguments: Sequence[str]) -> tuple[TrainOptions, RunFolder]:
    """What is asked for, and the folder to do it in."""
    files = [a for a in arguments[:1] if not a.startswith("-")]
    arguments = list(arguments[len(files) :])
    names = {part: take(arguments, part) for part in ("method", "views", *CHOICES)}
    if not files and not {"-h", "--help"} & set(arguments):
        raise UserError(
            "Give an experiment: jaxclr train EXPERIMENT.py, for instance experiments/digits.py."
        )
    if files:
        config = load_experiment(pathlib.Path(files[0]), method=names["method"])
    else:
        # Only --help comes this far without an experiment.
        config = Config(method=named("method", names["method"] or "sim_affinity", METHODS)())
    chosen = {
        part: named(part, names[part], choices)
        for part, choices in CHOICES.items()
        if names[part] is not None
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
        description="Pre-train an encoder. --method, --encoder, --augmentation and --optimizer NAME choose a part by name "
        "(`jaxclr list`); its fields below are then those of the choice. --views N takes the first N views of the "
        "augmentation, starting over after its last. The same command continues the run that it started, from its newest "
        f"checkpoint, until that is finished. {STATUSES}",
    )
    method = method_name(options.config.method)
    folder = f"runs/{pathlib.Path(files[0]).stem}-{method}-{options.config.seed}"
    return options, RunFolder(options.out or pathlib.Path(folder))


def resume(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Continue a run from its newest checkpoint: jaxclr resume RUN"""
    options = parse(
        RunOptions,
        arguments,
        "resume",
        description=f"Continue a run from its newest checkpoint, or probe it again if it is finished. {STATUSES}",
    )
    run = RunFolder(options.run)
    session = training.open_session(runtime.run_on_all(run.config))
    with runtime.hold_on_first(run.locked()):
        _train(session, run, console)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of `jaxclr resume`."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""

    distributed: Distributed = Distributed()
    """Several processes: each is started by the same command."""


def _train(
    session: Session, run: RunFolder, console: rich.console.Console, *, profile: range = range(0)
) -> None:
    config, train = session.config, session.dataset.train
    shape = "" if isinstance(train, Stream) else f" of {'x'.join(map(str, train.images.shape[1:]))}"
    say(
        console,
        f"{type(config.method).__name__} on {session.dataset.name}: {train.size} images{shape}, "
        f"{session.steps} steps of {config.batch_size} "
        f"on {session.mesh.size} {session.mesh.devices.flat[0].device_kind} device(s)"
        f"{'' if runtime.is_single() else f' of {jax.process_count()} processes'}",
    )
    for note in session.notes:
        say(console, note)
    if session.dataset.skipped:
        names = session.dataset.skipped
        say(console, f"{len(names)} unreadable file(s) left out: {', '.join(names[:5])}{' ...' * (len(names) > 5)}")
    state = training.train(session, run, console=console, evaluate=monitor, profile=profile)
    try:
        labelled_splits(session.dataset)
    except UserError as error:
        say(console, f"Not evaluated: {error}")
    else:
        probe(session, run, state, console, baselines=train.size <= FEW_IMAGES)
    # Matplotlib takes as long to start as all else: only now.
    from jaxclr.report.page import write_report

    runtime.run_on_first(lambda: write_report([run.folder], run.report))
    say(
        console,
        f"The run is in {run.folder}: configuration, metrics.jsonl, TensorBoard events, checkpoints, snapshots, evaluation.json.\n"
        f"Next: another objective with --method (`jaxclr list methods`), other settings (`jaxclr train EXPERIMENT.py --help`), "
        f"or the probes again with `jaxclr evaluate {run.folder}`.\n"
        f"Pictures of what was learned: {run.report}",
    )


def _create_or_continue(run: RunFolder, session: Session, *, overwrite: bool) -> None:
    if run.exists and not overwrite:
        _check_continues(run, session)
    else:
        run.create(session.config, overwrite=overwrite)


def _check_continues(run: RunFolder, session: Session) -> None:
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
