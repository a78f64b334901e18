"""Indexes of data files: made once, and kept beside the file or in the cache folder."""

import concurrent.futures
import hashlib
import io
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from jaxclr.runs.trust import cache_folder

Arrays = dict[str, np.ndarray]
Make = Callable[[pathlib.Path], Mapping[str, np.ndarray]]

THREADS = 16
_STAMP = "stamp"


def indexes(paths: Sequence[pathlib.Path], make: Make, *, kind: str) -> list[Arrays]:
    """The index of each file, in the order of `paths`; those to be made are made in parallel.

    An index is stored in the hidden file .NAME.index.npz beside its file; or, if that folder cannot
    be written, in the cache folder. It is made again if the size or the time of modification of the
    file is another one.

    Args:
      paths: of the data files.
      make: computes the index of a file: arrays, none of them of objects.
      kind: the name and version of what `make` computes; an index of another kind is made again.

    Raises:
      Exception: whatever `make` raises, of the first such file.
    """
    if not paths:
        return []
    with concurrent.futures.ThreadPoolExecutor(min(THREADS, len(paths))) as pool:
        jobs = [pool.submit(_index, path, make, kind) for path in paths]
        try:
            return [job.result() for job in jobs]
        finally:
            pool.shutdown(cancel_futures=True)


def _index(path: pathlib.Path, make: Make, kind: str) -> Arrays:
    stat = path.stat()
    stamp = np.array(f"{kind} {stat.st_size} {stat.st_mtime_ns}")
    for place in _places(path):
        if (found := _read(place, stamp)) is not None:
            return found
    made = dict(make(path))
    content = io.BytesIO()
    np.savez(content, **made, **{_STAMP: stamp})  # pyright: ignore[reportArgumentType]
    for place in _places(path):
        try:
            _write(place, content.getvalue())
            break
        except OSError:  # a read-only or full disk: the next place, or an index in memory only
            continue
    return made


def _places(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Where the index of a file may be, in order of preference."""
    yield path.with_name(f".{path.name}.index.npz")
    digest = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    yield cache_folder() / "indexes" / f"{digest}.npz"


def _read(place: pathlib.Path, stamp: np.ndarray) -> Arrays | None:
    """An index; None if it does not exist, is of another file or is damaged."""
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as stored:
            if stored[_STAMP] != stamp:
                return None
            return {name: stored[name] for name in stored.files if name != _STAMP}
    except Exception:  # many kinds, by the damage; it is made again
        return None


def _write(place: pathlib.Path, content: bytes) -> None:
    """Writes a whole file or nothing; of several processes the last one wins."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=place.parent, prefix=f"{place.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)
        os.replace(part, place)
    except BaseException:
        os.unlink(part)
        raise
