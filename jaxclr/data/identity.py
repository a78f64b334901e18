"""The identity of a run's data and code, to notice that they changed before the run goes on."""

import concurrent.futures
import dataclasses
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxclr import trees
from jaxclr.data.dataset import Dataset, Split, abbreviate
from jaxclr.data.stream import Stream
from jaxclr.errors import cut

MOST_FILES = 20_000  # of more files, only their folders are listed
_SOME = 4096  # files whose sizes are read at a time


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a run was made of.

    Attributes:
      classes: their names.
      examples: number of examples in each split.
      parts: fingerprints. Parts are the files of an image folder by their path in it, each with its
        size, and in a bucket its version; the arrays of other data in memory, each with its
        checksum; of TFDS, the name and version. Data that a program's own source reads item by
        item have none.
      code: checksums of the run's code that is not copied; see `jaxclr.runs.parts.checksums`.
      streamed: whether images are streamed, where crops differ from those in memory; None: unknown.
    """

    classes: tuple[str, ...]
    examples: Mapping[str, int]
    parts: Mapping[str, str]
    code: Mapping[str, str] = dataclasses.field(default_factory=dict)
    streamed: bool | None = None


def identity(dataset: Dataset, data: Any) -> Identity:
    """The identity of the data of a run.

    Args:
      dataset: the splits.
      data: the `Data`, `Arrays` or `Source` of the configuration.
    """
    splits = {"train": dataset.train, "test": dataset.test}
    splits = {name: split for name, split in splits.items() if split is not None}
    kind, _, argument = getattr(data, "source", "").partition(":")
    parts = dict(dataset.files or {})
    for name, split in splits.items():
        if dataset.files is not None:
            continue
        if kind == "folder":
            root = os.path.join(os.path.abspath(os.path.expanduser(argument)), "")
            parts |= {os.path.abspath(f).removeprefix(root): str(n) for f, n in _sizes(split)}
        elif dataset.version:
            parts["version"] = dataset.version
        elif isinstance(split, Split):
            arrays = [*trees.named_leaves(split.examples), ("labels", split.labels)]
            parts |= {
                f"{name} {leaf or 'examples'}": _checksum(array)
                for leaf, array in arrays
                if array is not None
            }
    parts = fingerprints(parts)
    counts = {name: split.size for name, split in splits.items()}
    return Identity(dataset.classes, counts, parts, streamed=isinstance(dataset.train, Stream))


def changes(before: Identity, now: Identity) -> list[str]:
    """The differences of two identities, in words."""
    classes = (dict.fromkeys(side.classes) for side in (before, now))
    found = [f"class {line}" for line in _compared(*classes)]
    if not found and before.classes != now.classes:
        found.append("classes are in another order")
    for split in ("train", "test"):
        counts = [side.examples.get(split, 0) for side in (now, before)]
        if counts[0] != counts[1]:
            found.append(f"{split} has {counts[0]} examples instead of {counts[1]}")
    code = [f"code {line}" for line in _compared(before.code, now.code)]
    if None not in (before.streamed, now.streamed) and before.streamed != now.streamed:
        how = "streamed, not in memory" if now.streamed else "in memory, not streamed"
        found.append(f"images are {how}: crops differ (set --data.memory-limit as before)")
    return found + _compared(before.parts, now.parts) + code


def _compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    lists = (
        ("added", [name for name in now if name not in before]),
        ("missing", [name for name in before if name not in now]),
        ("changed", [name for name in before if name in now and before[name] != now[name]]),
    )
    return [f"{what}: {abbreviate([*map(cut, names)], 3)}" for what, names in lists if names]


def _sizes(split: Any) -> Iterator[tuple[str, int]]:
    """The files of a split and their sizes in bytes; -1 if a file is gone."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for names in _names(split):
            yield from zip(names, pool.map(_size, names), strict=True)


def _names(split: Any) -> Iterator[list[str]]:
    if isinstance(split, Stream):
        for start in range(0, split.size, _SOME):
            rows = split.rows[start : start + _SOME].tolist()
            yield [file.name for file, _ in split.stored.read(rows)]
    else:
        yield list(split.names or ())


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _checksum(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    crc = zlib.crc32(array.reshape(-1).view(np.uint8).data)
    return f"{array.dtype} {list(array.shape)} {crc:08x}"


def fingerprints(files: Mapping[str, str]) -> dict[str, str]:
    """What is stored of files: their marks; or of many files a number and checksum by folder."""
    if len(files) <= MOST_FILES:
        return dict(files)
    found: dict[str, tuple[int, int]] = {}
    for name, size in sorted(files.items()):
        folder = os.path.join(os.path.dirname(name), "")
        count, crc = found.get(folder, (0, 0))
        line = f"{os.path.basename(name)} {size}\n".encode(errors="surrogateescape")
        found[folder] = count + 1, zlib.crc32(line, crc)
    return {folder: f"{count} files {crc:08x}" for folder, (count, crc) in found.items()}
