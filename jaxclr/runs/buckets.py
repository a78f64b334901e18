"""Files of a run in a bucket, gs:// or s3://, through fsspec.

A bucket has no append, no atomic rename, no locks and no partial files: an object is written whole
or not at all. What each file of a run rests on there, and what is left by a process that ends
between any two writes:

====================== ================================== ======================================
file                   way                                after an interruption
====================== ================================== ======================================
config.json            one object, written last           without it, the folder counts as empty
data.json, init.json,  one object each                    the one before, or none
signature, snapshots/,
evaluation.json,
bad_step.json,
report.html
parts/                 one object a file; copied to this  replaced when the run is created again
                       machine to be imported
metrics.jsonl,         a local file, uploaded whole       those of all steps up to the newest
tensorboard/           before each checkpoint and at the  complete checkpoint, or more; lines of
                       end                                steps after it are dropped
profile/, wandb/       a local folder, uploaded when it   not needed to resume
                       is complete
checkpoints/ in gs://  written by Orbax and TensorStore;  without commit_success.txt: ignored,
                       files.json and then                and removed when the run goes on
                       commit_success.txt are last
checkpoints/ in s3://  written to a local folder, then    likewise
                       uploaded, commit_success.txt last
.lock                  conditional writes (`leases`)      taken over
====================== ================================== ======================================
"""

import atexit
import contextlib
import functools
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from jaxclr.buckets import bucket_of, check_bucket, client, reaching
from jaxclr.errors import UserError
from jaxclr.paths import Path, in_bucket

COMMITTED = "commit_success.txt"  # Orbax's name of the last object of a checkpoint

_locks: dict[str, Callable[[], None]] = {}


@contextlib.contextmanager
def guarding(folder: Path, check: Callable[[], None]) -> Iterator[None]:
    """Calls a function, which may raise, before this process changes anything in a folder."""
    _locks[str(folder)] = check
    try:
        yield
    finally:
        del _locks[str(folder)]


def check_lock(path: Path) -> None:
    """Raises UserError if this process held the lock of the run with this path, and has lost it."""
    for folder, check in list(_locks.items()):
        if str(path) == folder or str(path).startswith(f"{folder}/"):
            check()


def exists(path: Path) -> bool:
    """Whether an object or folder exists.

    Raises:
      UserError: the bucket does not exist, or cannot be reached with these credentials.
    """
    with reaching(path):
        try:
            client(path).info(str(path))
        except FileNotFoundError:
            check_bucket(bucket_of(path))
            return False
        return True


def read(path: Path, most: int) -> bytes:
    """The content of an object of at most this many bytes; raises UserError if it is not one."""
    with reaching(path):
        try:
            found = client(path).info(str(path))
            if found["type"] != "file":
                raise UserError(f"{path} is not a regular file.")
            if found["size"] > most:
                raise UserError(f"{path} has {found['size']} bytes; at most {most} are read.")
            return client(path).cat_file(str(path))
        except FileNotFoundError as error:
            check_bucket(bucket_of(path))
            raise UserError(f"{path} cannot be read: it does not exist.") from error


def write(path: Path, content: bytes) -> None:
    """Writes one object: whole or not at all."""
    check_lock(path)
    with reaching(path):
        client(path).pipe_file(str(path), content)


def names(folder: Path) -> list[str]:
    """Names of the objects and folders in a folder; [] if it does not exist."""
    with reaching(folder), contextlib.suppress(FileNotFoundError):
        listed = client(folder).ls(str(folder), detail=False)
        return sorted({path.rstrip("/").rpartition("/")[2] for path in listed} - {folder.name})
    return []


def files(folder: Path) -> dict[str, dict[str, Any]]:
    """What the bucket knows of each object below a folder, by its path in the folder."""
    start = len(str(folder).partition("://")[2]) + 1
    with reaching(folder):
        found = client(folder).find(str(folder), detail=True)
    return {path[start:]: known for path, known in found.items()}


def remove(folder: Path) -> None:
    """Removes a folder or an object, if it exists; of a checkpoint, its last object first."""
    check_lock(folder)
    with reaching(folder):
        for path in (folder / COMMITTED, folder):
            with contextlib.suppress(FileNotFoundError):
                client(folder).rm(str(path), recursive=True)


def upload(folder: pathlib.Path, to: Path) -> None:
    """Copies a local folder into a bucket; the last object of a checkpoint, if any, last."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    last = [path for path in found if path == folder / COMMITTED]
    for some in ([path for path in found if path not in last], last):
        check_lock(to)
        with reaching(to):
            if some:
                there = [f"{to}/{path.relative_to(folder).as_posix()}" for path in some]
                client(to).put(list(map(str, some)), there)


def download(folder: Path, to: pathlib.Path) -> None:
    """Copies a folder of a bucket into a local one, which it replaces."""
    shutil.rmtree(to, ignore_errors=True)
    wanted = list(files(folder))
    for name in wanted:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
    with reaching(folder):
        client(folder).get([f"{folder}/{name}" for name in wanted], [str(to / n) for n in wanted])


def copied(path: Path) -> pathlib.Path:
    """A local path as it is; of an object, a copy on this machine until this process ends."""
    if not in_bucket(path):
        return pathlib.Path(path)
    here = local(path.parent) / path.name
    if exists(path):
        with reaching(path):
            client(path).get_file(str(path), str(here))
    return here


def copy(folder: Path, to: Path) -> None:
    """Copies a checkpoint within a bucket, its last object last."""
    check_lock(to)
    found = sorted(files(folder), key=lambda name: (name == COMMITTED, name))
    with reaching(folder):
        for name in found:
            client(folder).cp_file(f"{folder}/{name}", f"{to}/{name}")


@functools.cache
def local(folder: Path) -> pathlib.Path:
    """A folder of this machine for a run's files: the run's own, or a temporary one of a bucket's.

    A temporary one is removed when this process ends.
    """
    if not in_bucket(folder):
        return pathlib.Path(folder)
    made = tempfile.mkdtemp(prefix="jaxclr-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return pathlib.Path(made)
