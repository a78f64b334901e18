"""Checks of paths before they are opened, and reasons why they cannot be."""

import os
import stat

from jaxclr.data import buckets
from jaxclr.errors import UserError, reason
from jaxclr.paths import in_bucket
from jaxclr.text import displayable

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def kind_of_mode(mode: int) -> str:
    """What a file is by its st_mode: "a FIFO", "a folder" and so on; "a file" for all others."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def check_is(path: str | os.PathLike[str], wanted: str) -> None:
    """Raises UserError unless a path is "a file" or "a folder", as wanted; it is not opened."""
    if in_bucket(path):
        return buckets.check_is(os.fspath(path), wanted)
    name = displayable(path)
    try:
        kind = kind_of_mode(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"'{name}' does not exist; give {wanted}.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"'{name}' cannot be read ({reason(error)}).") from error
    if kind != wanted:
        raise UserError(f"'{name}' is {kind}; give {wanted}.")
