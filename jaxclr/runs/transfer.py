"""Copies of checkpoints between a bucket in s3://, where Orbax cannot write, and this machine."""

import pathlib

from jaxclr.paths import Path
from jaxclr.runs import buckets, seals
from jaxclr.runs.files import complete_steps, names, remove


def is_copied(folder: Path) -> bool:
    """Whether checkpoints are written to this machine and then copied: Orbax cannot use s3://."""
    return str(folder).startswith("s3://")


def fetched(folder: Path) -> Path:
    """The folder in which Orbax finds the checkpoints: that folder, or a copy on this machine.

    An older checkpoint is copied only if the files of all newer ones are damaged.
    """
    if not is_copied(folder):
        return folder
    here = buckets.local(folder)
    for step in here.iterdir():
        remove(step)
    for step in reversed(complete_steps(folder)):
        buckets.download(folder / str(step), here / str(step))
        if seals.damage(here / str(step)) is None:
            break
    return here


def publish(folder: pathlib.Path, to: Path, *, keep: int) -> None:
    """Copies a complete checkpoint into a bucket, and removes those before the newest `keep`."""
    step = folder.name.partition(".")[0]
    remove(to / step)
    (folder / buckets.COMMITTED).touch()
    buckets.upload(folder, to / step)
    for old in complete_steps(to)[:-keep]:
        remove(to / str(old))


def remove_unfinished(folder: Path) -> None:
    """Removes checkpoints from a bucket whose upload was interrupted."""
    complete = {str(step) for step in complete_steps(folder)}
    for name in names(folder):
        if name.isdecimal() and name not in complete:
            remove(folder / name)
