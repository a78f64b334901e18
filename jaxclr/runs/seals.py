"""A seal: lengths and checksums of a folder's files, to name a damaged file before it is read."""

import json
import os
import pathlib
import stat
import zlib

from jaxclr.runs.files import write_atomically
from jaxclr.runs.readers import LARGEST, is_there, read_object

NAME = "files.json"


def seal(folder: pathlib.Path) -> None:
    """Writes lengths and checksums of the files in all sub-folders to files.json."""
    files = {
        str(path.relative_to(folder)): _length_and_crc32(path)
        for path in sorted(folder.glob("*/**/*"))
        if path.is_file()
    }
    write_atomically(folder / NAME, json.dumps(files, indent=1) + "\n")


def damage(folder: pathlib.Path) -> str | None:
    """Describes the first file that differs from the seal; None if all are as they were."""
    return next(iter(damages(folder).values()), None)


def damages(folder: pathlib.Path) -> dict[str, str]:
    """Describes all files that differ from the seal, by name; `NAME` if there is no such seal."""
    found = {}
    try:
        if not is_there(folder / NAME):
            return {NAME: f"{NAME} is missing"}
        for name, (length, crc32) in read_object(folder / NAME).items():
            path = folder / name
            if not path.is_file():
                found[name] = f"{name} is missing"
            elif path.stat().st_size != length:
                found[name] = f"{name} has {path.stat().st_size} bytes instead of {length}"
            elif _length_and_crc32(path)[1] != crc32:
                found[name] = f"{name} differs from what was written"
    except OSError as error:
        found[NAME] = str(error)
    except (ValueError, TypeError):  # UserErrors are ValueErrors
        found[NAME] = f"{NAME} differs from what was written"
    return found


def unreadable(folder: pathlib.Path) -> str | None:
    """Describes a file below a folder that cannot be read to its end; None without one.

    A pipe blocks for ever, and a sparse file may be larger than memory. Other processes may write
    and remove files meanwhile.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(root, name)
            shown = path.relative_to(folder)
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"{shown}: {error.strerror}"
            if not stat.S_ISREG(found.st_mode):
                return f"{shown} is not a regular file"
            if name.startswith("_") and found.st_size > LARGEST:  # Orbax's metadata
                return f"{shown} has {found.st_size} bytes"
    return None


def _length_and_crc32(path: pathlib.Path) -> tuple[int, int]:
    length = crc32 = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            length, crc32 = length + len(part), zlib.crc32(part, crc32)
    return length, crc32
