"""Atomic writes, locks, and file-system errors as UserErrors."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator

from jaxclr.errors import UserError, reason
from jaxclr.paths import Path, in_bucket, replace_file
from jaxclr.runs import buckets, leases

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a temporary file and renames it, so that no partial file is ever seen.

    In a bucket every object is written whole or not at all.
    """
    content = content.encode() if isinstance(content, str) else content
    if in_bucket(path):
        buckets.write(path, content)
    else:
        replace_file(path, content)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it, if it exists; of a link, the link."""
    if in_bucket(path):
        buckets.remove(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def rename(folder: Path, to: Path) -> None:
    """Renames a folder; in a bucket it is copied, and then removed."""
    if in_bucket(folder):
        buckets.copy(folder, to)
        buckets.remove(folder)
    else:
        folder.rename(to)


def make_folder(folder: Path) -> None:
    """Creates a folder if it does not exist; a bucket has no folders of their own."""
    if not in_bucket(folder):
        folder.mkdir(parents=True, exist_ok=True)


def names(folder: Path) -> list[str]:
    """Names of the files and folders in a folder."""
    if in_bucket(folder):
        return buckets.names(folder)
    return [path.name for path in folder.iterdir()]


def complete_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, in order; [] if it does not exist."""
    if in_bucket(folder):
        last = (path.split("/") for path in buckets.files(folder))
        found = [parts[0] for parts in last if parts[1:] == [buckets.COMMITTED]]
    else:
        found = [path.name for path in folder.glob("*") if path.is_dir()]
    return sorted(int(name) for name in found if name.isdecimal())


def check_names_file(path: Path) -> None:
    """Raises UserError if the path of an output is that of a folder."""
    if not path.name or path.is_dir():
        raise UserError(f"--out {path} is a folder; give the name of a file.")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an OSError into a UserError that names the folder and the reason."""
    try:
        with buckets.reaching(folder):
            yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from error


def check_path(folder: Path) -> None:
    """Checks that TensorStore writes to a local path as it is given.

    It replaces backslashes by slashes, takes "gs:/" for a bucket, and its paths are UTF-8.

    Raises:
      UserError: it would write elsewhere or fail.
    """
    if in_bucket(folder):
        return
    path = str(folder.resolve())
    try:
        path.encode()
    except UnicodeEncodeError:
        strange = "characters that are not UTF-8"
    else:
        if "\\" in path:
            strange = "a backslash"
        elif re.search(r":(/|$)", path):
            strange = "a colon at the end of a name"
        else:
            return
    raise UserError(
        f"Checkpoints cannot be stored in {ascii(str(folder))[1:-1]}, whose path has {strange}; "
        "give another folder with --out."
    )


def check_writable(folder: Path) -> None:
    """Creates a folder if it does not exist, and checks that files can be written to it.

    In a bucket, writing the lock has shown it.

    Raises:
      UserError: they cannot.
    """
    if in_bucket(folder):
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part"):
            pass


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file, which is released when this process ends.

    In a bucket, see `leases`.

    Args:
      path: the file; it and its folder are created if they do not exist.

    Raises:
      UserError: another process holds it, or it cannot be written.
    """
    if in_bucket(path):
        with leases.held(path):
            yield
        return
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # No link, which might lead to another file; no pipe, which would block.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        with writing(path.parent):
            _hold(handle, path)
        yield
    finally:
        os.close(handle)


def _hold(handle: int, path: pathlib.Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        raise UserError(
            f"{path.parent} is in use by {holder}. Wait until that is done, or use another folder."
        ) from error
    except OSError as error:
        # On a file system without locks the run continues without one.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def disk_reason(error: Exception) -> str:
    """The file system's reason if the error's text contains one, otherwise `errors.reason`."""
    reasons = (of_disk for of_disk in map(os.strerror, _OF_DISKS) if of_disk in str(error))
    return next(reasons, None) or reason(error)
