"""A seal: lengths and checksums of a folder's files, to name a damaged file before it is read."""

import base64
import json
import os
import pathlib
import stat
import zlib
from collections.abc import Mapping
from typing import Any

import google_crc32c

from jaxclr.paths import Path, in_bucket
from jaxclr.runs import buckets
from jaxclr.runs.files import write_atomically
from jaxclr.runs.readers import LARGEST, is_there, read_object

NAME = "files.json"


def seal(folder: Path) -> None:
    """Writes lengths and checksums of the files in all sub-folders to files.json.

    Checksums are CRC-32, integers. In a bucket they are those of the store itself, CRC-32C as text
    (gs://), so that neither writing nor comparing them reads the files.
    """
    if in_bucket(folder):
        files = {
            name: (known["size"], known["crc32c"])
            for name, known in sorted(buckets.files(folder).items())
            if "/" in name
        }
    else:
        files = {
            str(path.relative_to(folder)): _length_and_crc32(path)
            for path in sorted(folder.glob("*/**/*"))
            if path.is_file()
        }
    write_atomically(folder / NAME, json.dumps(files, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """Describes the first file that differs from the seal; None if all are as they were."""
    return next(iter(damages(folder).values()), None)


def damages(folder: Path) -> dict[str, str]:
    """Describes all files that differ from the seal, by name; `NAME` if there is no such seal."""
    found = {}
    try:
        if not is_there(folder / NAME):
            return {NAME: f"{NAME} is missing"}
        there = buckets.files(folder) if in_bucket(folder) else None
        for name, (length, checksum) in read_object(folder / NAME).items():
            size = (
                _size(pathlib.Path(folder / name))
                if there is None
                else there.get(name, {}).get("size")
            )
            if size is None:
                found[name] = f"{name} is missing"
            elif size != length:
                found[name] = f"{name} has {size} bytes instead of {length}"
            elif not _has(folder / name, checksum, (there or {}).get(name, {})):
                found[name] = f"{name} differs from what was written"
    except OSError as error:
        found[NAME] = str(error)
    except (ValueError, TypeError):  # UserErrors are ValueErrors
        found[NAME] = f"{NAME} differs from what was written"
    return found


def unreadable(folder: Path) -> str | None:
    """Describes a file below a folder that cannot be read to its end; None without one.

    A pipe blocks for ever, and a sparse file may be larger than memory. Other processes may write
    and remove files meanwhile.
    """
    if in_bucket(folder):
        return None
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


def _size(path: pathlib.Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _has(path: Path, checksum: int | str, known: Mapping[str, Any]) -> bool:
    """Whether a file has a checksum: CRC-32, or CRC-32C in base64, which the store may know."""
    if isinstance(checksum, int):
        return _length_and_crc32(path)[1] == checksum
    if "crc32c" in known:
        return known["crc32c"] == checksum
    return base64.b64encode(google_crc32c.Checksum(path.read_bytes()).digest()).decode() == checksum


def _length_and_crc32(path: Path) -> tuple[int, int]:
    length = crc32 = 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            length, crc32 = length + len(part), zlib.crc32(part, crc32)
    return length, crc32
