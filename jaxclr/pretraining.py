"""A run from start to end: created or compared, trained, evaluated and reported."""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import rich.console

from jaxclr.data import Stream
from jaxclr.data.dataset import abbreviate
from jaxclr.errors import MissingExtra, UserError, optional
from jaxclr.evaluation.closing import closing_record, closing_table, monitor
from jaxclr.evaluation.subject import labeled_splits
from jaxclr.processes import runtime
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.config import (
    CHANGEABLE,
    LENGTH,
    Config,
    Extension,
    differences,
    extensions_at,
    to_json,
)
from jaxclr.runs.experiments import Experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.loggers import Logger, Send, sending
from jaxclr.steps.state import State
from jaxclr.text import print_text
from jaxclr.training.loop import train as train_session
from jaxclr.training.session import Session, total_steps

FEW_IMAGES = 10_000  # up to this many, training also ends with probes of the baselines

Say = Callable[[str], None]


def write_report(
    folders: list[pathlib.Path],
    out: str | os.PathLike[str] | None = None,
    *,
    channels: Sequence[int] | None = None,
) -> pathlib.Path:
    """Writes one HTML file that compares runs.

    Args:
      folders: folders of the runs.
      out: path of the file; None for report.html, in the folder of a single run, otherwise in the
        current folder.
      channels: one or three channels of images that pictures show, counted from 1; None: the first
        three.

    Returns:
      The path.
    """
    # Imported here: Matplotlib is slow to import.
    write = optional("jaxclr.report.page").write_report

    default = (folders[0] if len(folders) == 1 else pathlib.Path()) / "report.html"
    path = default if out is None else pathlib.Path(out).expanduser()
    write(folders, path, channels=channels)
    return path


def newest(session: Session, folder: RunFolder, say: Say) -> State:
    """The state of the newest undamaged checkpoint."""
    with Checkpoints(folder.checkpoints) as checkpoints:
        return checkpoints.restore(session.state_shape(), say=say)


def pretrain(
    session: Session,
    folder: RunFolder,
    console: rich.console.Console | None,
    say: Say,
    *,
    profile: range = range(0),
    loggers: Sequence[Logger] = (),
) -> None:
    """Trains, evaluates and reports."""
    with sending(loggers, folder.folder, json.loads(to_json(session.config)), say=say) as send:
        _train_and_evaluate(session, folder, console, say, profile, send)
    try:
        runtime.run_on_first(lambda: write_report([folder.folder], folder.report))
    except MissingExtra as error:
        say(f"No report was written: {error}")


def _train_and_evaluate(
    session: Session,
    folder: RunFolder,
    console: rich.console.Console | None,
    say: Say,
    profile: range,
    send: Send,
) -> None:
    config, train = session.config, session.dataset.train
    kind = "examples" if train.channels is None else "images"
    say(
        f"{type(config.method).__name__} on {session.dataset.name}: {train.size} {kind}, "
        f"{session.steps} steps of {config.batch_size} "
        f"on {session.mesh.size} {session.mesh.devices.flat[0].device_kind} device(s)"
        f"{'' if runtime.is_single() else f' of {jax.process_count()} processes'}"
    )
    if classes := session.dataset.classes:
        say(f"{len(classes)} class(es): {abbreviate(classes)}")
    for note in session.notes:
        say(note)
    state = train_session(
        session,
        folder,
        console=console or rich.console.Console(),
        evaluate=monitor,
        profile=profile,
        send=send,
    )
    try:
        labeled_splits(session.dataset)
    except UserError as error:
        say(f"Not evaluated: {error}")
    else:
        record = evaluate_closing(session, folder, state, baselines=train.size <= FEW_IMAGES)
        figures = record["features"]["trained"].items()
        send(record["step"], {f"closing/{name}": figure["mean"] for name, figure in figures})
        if console is not None:
            console.print(closing_table(record))


def evaluate_closing(
    session: Session, folder: RunFolder, state: State, *, baselines: bool
) -> dict[str, Any]:
    record = closing_record(session.subject(state), baselines=baselines)
    runtime.run_on_first(lambda: folder.write_evaluation(record))
    return record


def create_or_check(
    folder: RunFolder, session: Session, experiment: Experiment | None, *, overwrite: bool
) -> None:
    """Creates the run, or checks that an existing one has this configuration and these sources."""
    if not folder.exists or overwrite:
        folder.create(
            session.config,
            overwrite=overwrite,
            experiment=experiment,
            streamed=_is_streamed(session),
        )
        return
    changed = differences(folder.config(), session.config)
    refused = [text for name, text in changed.items() if name not in CHANGEABLE | LENGTH]
    if refused:
        raise UserError(
            f"{folder.folder} is a run of another configuration: {'; '.join(refused)}. "
            f"{_advice(folder)}"
        )
    if sources := folder.changed_sources(session.config, experiment):
        raise UserError(
            f"{folder.folder} was started with other code in {', '.join(sources)}. "
            f"{_advice(folder)}"
        )


def go_on(folder: RunFolder, session: Session, say: Say) -> Session:
    """The session of a run that goes on, after config.json is brought up to date.

    Frequencies and limits may have changed. A run that is to be longer is extended from its newest
    checkpoint on.

    Args:
      folder: of the run, locked.
      session: the session of the configuration that is wanted; equal to the run's except for
        `CHANGEABLE` and `LENGTH`.
      say: called with a sentence on each change.

    Raises:
      UserError: the run is to be shorter.
    """
    written: list[Extension] = []
    runtime.run_on_first(lambda: written.extend(_update(folder, session, say)))
    agreed = runtime.first_nonempty(json.dumps(written))
    return session.extended(tuple(Extension(*pair) for pair in json.loads(agreed or "[]")))


def _update(folder: RunFolder, session: Session, say: Say) -> tuple[Extension, ...]:
    """Brings config.json up to date and returns the extensions of the run."""
    stored, config = folder.config(), session.config
    before, steps = total_steps(stored, session.steps_per_epoch), session.steps
    changed = differences(stored, config)
    if steps < before:
        short = "; ".join(changed[name] for name in sorted(LENGTH & changed.keys()))
        raise UserError(
            f"{folder.folder} is a run of {before} steps and cannot become one of {steps} "
            f"({short}). {_advice(folder)}"
        )
    if folder.description().tree.get("streamed") not in (None, _is_streamed(session)):
        how = ("in memory", "streamed")
        raise UserError(
            f"The images of {folder.folder} were {how[not _is_streamed(session)]}, and with "
            f"{changed.get('data.memory_limit', 'this data.memory_limit')} they would be "
            f"{how[_is_streamed(session)]}, where crops differ. Set --data.memory-limit as before."
        )
    names, extensions = sorted(CHANGEABLE & changed.keys()), stored.extensions
    if names:
        say(f"Changed from here on: {'; '.join(changed[name] for name in names)}.")
    if steps > before:
        at = folder.newest_step
        extensions = extensions_at(at, extensions, before)
        names += [*LENGTH, "extensions"]
        say(
            f"Extended from {before} to {steps} steps at step {at}: from there on the learning "
            f"rate and all other schedules are those of a run of {steps} steps."
        )
    if names:
        folder.update(dataclasses.replace(config, extensions=extensions), names)
    return extensions


def _is_streamed(session: Session) -> bool:
    return isinstance(session.dataset.train, Stream)


def _advice(folder: RunFolder) -> str:
    return (
        f"Continue it as it is with `jaxclr resume {folder.folder}`, replace it with --overwrite, "
        "or give another folder with --out."
    )


def filled(config: Config, stored: Config) -> Config:
    """A configuration with the mean and deviation that were measured when its run began."""
    if config.data.mean is not None or type(config.data) is not type(stored.data):
        return config
    data = dataclasses.replace(config.data, mean=stored.data.mean, std=stored.data.std)
    return dataclasses.replace(config, data=data)


def is_labeled(session: Session) -> bool:
    try:
        labeled_splits(session.dataset)
    except UserError:
        return False
    return True


def printer(console: rich.console.Console | None) -> Say:
    console = console or rich.console.Console()
    console.quiet = console.quiet or not runtime.is_first()
    return functools.partial(print_text, console)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences logs of Orbax, which also raises these errors."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
