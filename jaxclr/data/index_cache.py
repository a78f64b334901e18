"""Indexes of data files: made once, and stored in their folder or in the cache folder."""

import concurrent.futures
import contextlib
import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxclr.data import buckets
from jaxclr.paths import Path, cache_folder, expanded, in_bucket, replace_file

Index = dict[str, np.ndarray]
Make = Callable[[str, int], Mapping[str, np.ndarray]]

THREADS = 16  # files indexed at a time


def indexes(paths: Iterable[str], make: Make, *, name: str, kind: str = "") -> dict[str, Index]:
    """The index of each file, by its path.

    Indexes are stored in the hidden file .NAME-index.npz of each folder; in the cache folder if
    that cannot be written. That of a file is made again if its size changed, or its time of
    modification (in a bucket: its version).

    Args:
      paths: of the files, local ones or URLs.
      make: computes the index of a file from its path and size: arrays [n, ...], the same ones for
        all files, with numbers or bytes.
      name: of the indexes.
      kind: what else an index depends on.

    Raises:
      OSError: a file does not exist or cannot be read.
      Exception: what `make` raises.
    """
    folders: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        folders.setdefault(os.path.dirname(path), []).append(path)
    found: dict[str, Index] = {}
    for folder, inside in folders.items():
        found |= _of_folder(folder, inside, make, name, kind)
    return found


def _of_folder(
    folder: str, paths: Sequence[str], make: Make, name: str, kind: str
) -> dict[str, Index]:
    places, marks = _places(folder, name), _marks(folder, paths)
    known = _stored(places)
    keys = {path: (os.path.basename(path), f"{marks[path]} {kind}") for path in paths}
    found = {path: known[key] for path, key in keys.items() if key in known}
    missing = [path for path in paths if path not in found]
    if missing:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            sizes = (int(marks[path].split()[0]) for path in missing)
            try:
                made = list(pool.map(make, missing, sizes))
            finally:
                pool.shutdown(cancel_futures=True)
        found |= zip(missing, map(dict, made), strict=True)
        names = {name for name, _ in keys.values()}
        kept = {key: known[key] for key in known if key[0] not in names}
        _store(places, kept | {key: found[path] for path, key in keys.items()})
    return found


def _marks(folder: str, paths: Sequence[str]) -> dict[str, str]:
    """The size of each file, and what changes with its content: a time or a version."""
    if in_bucket(folder):
        marks = {entry.url: entry.mark for entry in buckets.entries(folder) if entry.mark}
        for path in paths:
            if path not in marks:
                raise FileNotFoundError(errno.ENOENT, "does not exist", path)
        return marks
    stats = [os.stat(path) for path in paths]
    return {
        path: f"{stat.st_size} {stat.st_mtime_ns}" for path, stat in zip(paths, stats, strict=True)
    }


def _places(folder: str, name: str) -> list[Path]:
    """Files that may hold the indexes, the preferred one first."""
    folder = folder if in_bucket(folder) else os.path.abspath(folder)
    digest = hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:32]
    return [expanded(folder) / f".{name}-index.npz", cache_folder() / name / f"{digest}.npz"]


def _stored(places: Sequence[Path]) -> dict[tuple[str, str], Index]:
    """What is stored, by file name and mark; a damaged file counts as none."""
    found: dict[tuple[str, str], Index] = {}
    for place in places:
        with (
            contextlib.suppress(Exception),  # NumPy, zipfile and clients raise many kinds
            np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as file,
        ):
            keys = list(zip(file["files"].tolist(), file["marks"].tolist(), strict=True))
            arrays = [name.removeprefix("array ") for name in file.files if name[:6] == "array "]
            parts = [
                np.split(file[f"array {name}"], np.cumsum(file[f"counts {name}"])[:-1])
                for name in arrays
            ]
            for key, *values in zip(keys, *parts, strict=True):
                found[key] = dict(zip(arrays, values, strict=True))
    return found


def _store(places: Sequence[Path], known: Mapping[tuple[str, str], Index]) -> None:
    names, marks = zip(*known, strict=True)
    content, every = io.BytesIO(), list(known.values())
    joined = {}
    for name in every[0]:
        joined[f"array {name}"] = np.concatenate([index[name] for index in every])
        joined[f"counts {name}"] = np.asarray([len(index[name]) for index in every])
    np.savez(content, files=np.asarray(names), marks=np.asarray(marks), **joined)
    for place in places:
        with contextlib.suppress(Exception):  # as in `_stored`; the index is made again
            if in_bucket(place):
                place.write_bytes(content.getvalue())
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_file(place, content.getvalue())
            return
