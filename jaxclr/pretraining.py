"""A run from start to end: created or compared, trained, evaluated and reported."""

import contextlib
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import rich.console

from jaxclr.data.dataset import abbreviate
from jaxclr.errors import MissingExtra, UserError, optional
from jaxclr.evaluation.closing import closing_record, closing_table, monitor
from jaxclr.evaluation.subject import Subject, labeled_splits
from jaxclr.processes import runtime
from jaxclr.runs.config import Config, differences
from jaxclr.runs.experiments import Experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.text import print_text
from jaxclr.training.loop import train as train_session
from jaxclr.training.session import Session

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


def pretrain(
    session: Session,
    folder: RunFolder,
    console: rich.console.Console | None,
    say: Say,
    profile: range,
) -> None:
    """Trains, evaluates and reports."""
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
    )
    try:
        labeled_splits(session.dataset)
    except UserError as error:
        say(f"Not evaluated: {error}")
    else:
        record = evaluate_closing(
            session.subject(state), folder, baselines=train.size <= FEW_IMAGES
        )
        if console is not None:
            console.print(closing_table(record))
    try:
        runtime.run_on_first(lambda: write_report([folder.folder], folder.report))
    except MissingExtra as error:
        say(f"No report was written: {error}")


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
        folder.create(session.config, overwrite=overwrite, experiment=experiment, init=init)
        return
    changed = differences(folder.config(), session.config)
    advice = (
        f"Continue it as it is with `jaxclr resume {folder.folder}`, replace it with --overwrite, "
        "or give another folder with --out."
    )
    if changed:
        raise UserError(
            f"{folder.folder} is a run of another configuration: {'; '.join(changed)}. {advice}"
        )
    if sources := folder.changed_sources(session.config, experiment):
        raise UserError(
            f"{folder.folder} was started with other code in {', '.join(sources)}. {advice}"
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
