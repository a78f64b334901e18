"""A run from start to end: created or compared, trained, evaluated and reported."""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import rich.console

from jaxclr.data.dataset import abbreviate
from jaxclr.data.identity import Identity, changes, identity
from jaxclr.errors import UserError, optional, reason
from jaxclr.evaluation.closing import closing_record, closing_table, monitor
from jaxclr.evaluation.subject import Subject, labeled_splits
from jaxclr.paths import Path, expanded
from jaxclr.processes import runtime
from jaxclr.processes.signals import StopAtOnce, Stopped
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
from jaxclr.runs.parts import checksums
from jaxclr.text import print_table, print_text
from jaxclr.training.loop import train as train_session
from jaxclr.training.session import Session, total_steps

FEW_IMAGES = 10_000  # up to this many, training also ends with probes of the baselines

Say = Callable[[str], None]


def write_report(
    folders: list[Path],
    out: str | os.PathLike[str] | None = None,
    *,
    channels: Sequence[int] | None = None,
) -> Path:
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
    path = default if out is None else expanded(out)
    write(folders, path, channels=channels)
    return path


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
    with StopAtOnce(
        "stopped after training, which is saved, and before the end of its evaluation. The same "
        f"command, or `jaxclr resume {folder.folder}`, evaluates it."
    ):
        try:
            labeled_splits(session.dataset)
        except UserError as error:
            say(f"Not evaluated: {error}")
        else:
            subject = session.subject(state)
            record = evaluate_closing(subject, folder, baselines=train.size <= FEW_IMAGES)
            figures = record["features"]["trained"].items()
            send(record["step"], {f"closing/{name}": figure["mean"] for name, figure in figures})
            if console is not None:
                print_table(console, closing_table(record))
        runtime.run_on_first(lambda: _report(folder, say))


def _report(folder: RunFolder, say: Say) -> None:
    """Writes the report of a run; an error is said, because the run itself is complete."""
    try:
        write_report([folder.folder], folder.report)
    except Stopped:
        raise
    except UserError as error:
        say(f"No report was written: {error}")
    except Exception as error:  # drawing fails in more ways than can be listed
        say(
            f"No report was written: {type(error).__name__}: {reason(error)}. The run is "
            f"complete; `jaxclr report {folder.folder}` tries it again."
        )


def evaluate_closing(
    subject: Subject, folder: RunFolder, *, baselines: bool, elsewhere: str | None = None
) -> dict[str, Any]:
    """Writes the closing record; that of other data than the run's own under their name."""
    record = closing_record(subject, baselines=baselines)
    write = (
        folder.write_evaluation
        if elsewhere is None
        else functools.partial(folder.write_named, "other_data", elsewhere)
    )
    runtime.run_on_first(lambda: write(record))
    return record


def create_or_check(
    folder: RunFolder,
    session: Session,
    experiment: Experiment | None,
    *,
    overwrite: bool,
    init: dict[str, Any] | None = None,
) -> None:
    """Creates the run, or checks that an existing one has this configuration and these sources."""
    if not folder.exists or overwrite:
        made_of = _identity(session)
        folder.create(
            session.config, overwrite=overwrite, experiment=experiment, data=made_of, init=init
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
    check_data(folder, session)


def _identity(session: Session) -> Identity:
    config = session.config
    code = checksums(config)
    return dataclasses.replace(identity(session.dataset, config.data), code=code)


def check_data(folder: RunFolder, session: Session) -> None:
    """Checks that data and code are those with which the run began, if these are known.

    Raises:
      UserError: they differ; the message says in what.
    """
    before = folder.data()
    if before is not None and (changed := changes(before, _identity(session))):
        raise UserError(
            f"{folder.folder} began with other data or code: {'; '.join(changed)}. "
            "Restore them, replace the run with --overwrite, or give another folder with --out."
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
    """Prints errors that libraries log and do not raise, a line each, on standard error."""
    logger, heard = logging.getLogger("absl"), []

    def hear(record: logging.LogRecord) -> bool:
        heard.append(record.getMessage().partition("\n")[0])
        return False

    level = logger.level
    logger.setLevel(logging.ERROR)
    logger.addFilter(hear)
    try:
        yield
        for text in dict.fromkeys(heard):
            print(f"A library reports: {text}", file=sys.stderr)
    finally:
        logger.removeFilter(hear)
        logger.setLevel(level)
