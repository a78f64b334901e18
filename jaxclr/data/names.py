"""Paths and names of a file system, as messages and files show them."""

import os
import re
import stat

from jaxclr.errors import UserError

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def displayable(name: str | os.PathLike[str]) -> str:
    r"""A name as text that every encoding and a terminal take.

    Bytes that are not UTF-8 become escapes, such as ``\xe9``, and so do control characters except
    tabs and newlines. Everything else stays. The result is for people; it is not a path.

    >>> displayable(os.fsdecode(b"caf\xe9"))
    'caf\\xe9'
    """
    text = os.fspath(name)
    if text.isprintable():  # most names; this is called for every file
        return text
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", _escape, text)


def reason(error: Exception) -> str:
    """The first line of an exception's message, without the path that the caller names."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return displayable(text.splitlines()[0]) if text else type(error).__name__


def kind_of_mode(mode: int) -> str:
    """What a file is by its st_mode: "a FIFO", "a folder" and so on; "a file" for all others."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def check_is(path: str | os.PathLike[str], wanted: str) -> None:
    """Raises UserError unless a path is "a file" or "a folder", as wanted; it is not opened."""
    name = displayable(path)
    try:
        kind = kind_of_mode(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"There is no {wanted.removeprefix('a ')} '{name}'.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"'{name}' cannot be read ({reason(error)}).") from error
    if kind != wanted:
        raise UserError(f"'{name}' is {kind}; give {wanted}.")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, by os.fsdecode
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "surrogatepass").decode()
