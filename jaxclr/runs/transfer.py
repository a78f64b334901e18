"""Checkpoints in buckets: what Orbax does not do there.

It cannot write to s3://, so that checkpoints are copied to and from this machine.
"""

import pathlib

from jaxclr.paths import Path, in_bucket
from jaxclr.runs import buckets, seals
from jaxclr.runs.files import complete_steps, remove


def is_copied(folder: Path) -> bool:
    """Whether checkpoints are written to this machine and then copied: Orbax cannot use s3://."""
    return str(folder).startswith("s3://")


def fetched(folder: Path, use: str) -> Path:
    """The folder in which Orbax finds the checkpoints: that folder, or a copy on this machine.

    An older checkpoint is copied only if the files of all newer ones are damaged.

    Args:
      folder: where the checkpoints are.
      use: name of the copy; one that is being written is another than one that is read.
    """
    if not is_copied(folder):
        return folder
    here = buckets.local(folder / use)
    for step in here.iterdir():
        remove(step)
    for step in reversed(complete_steps(folder)):
        buckets.download(folder / str(step), here / str(step))
        if seals.damage(here / str(step)) is None:
            break
    return here


def publish(folder: Path, to: Path) -> None:
    """Copies a complete checkpoint on this machine into a bucket."""
    step = folder.name.partition(".")[0]
    remove(to / step)
    (folder / buckets.COMMITTED).touch()
    buckets.upload(pathlib.Path(folder), to / step)


def remove_old(folder: Path, keep: int) -> None:
    """Removes all but the newest complete checkpoints from a bucket; elsewhere Orbax does it."""
    if in_bucket(folder):
        for step in complete_steps(folder)[:-keep]:
            remove(folder / str(step))
