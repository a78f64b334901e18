"""Random access to the records of TFRecord files, through an index of their offsets.

A record is the length of its data (uint64), the checksum of the length, the data and their
checksum. Checksums are masked CRC32C (uint32); all numbers are little-endian.
"""

import concurrent.futures
import contextlib
import hashlib
import io
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np

from jaxclr.data import buckets
from jaxclr.data.spans import Span, read_spans
from jaxclr.errors import UserError, reason
from jaxclr.paths import Path, expanded, in_bucket
from jaxclr.text import displayable

HEADER, FOOTER = 12, 4  # bytes before and after the data of a record
INDEX = ".tfrecord-index.npz"
LOCAL_BLOCK, BUCKET_BLOCK = 2**14, 2**23  # bytes read at a time for an index
THREADS = 16  # files indexed at a time

Offsets = Mapping[str, np.ndarray]  # by file name: where records begin, and the end; int64 [n + 1]


class Records:
    """The records of some shards, in order; a random-access source of bytes.

    Args:
      instructions: TFDS's file instructions: shards, each with its number of records and the range
        of records that is read.

    Raises:
      UserError: a file is missing, damaged or truncated.
    """

    def __init__(self, instructions: Sequence[Any]):
        self._paths = [os.fspath(one.filename) for one in instructions]
        takes = np.asarray([one.take for one in instructions], np.int64)
        self._ends = np.cumsum(takes)  # rows up to the end of each shard
        skips = np.asarray([one.skip for one in instructions], np.int64)
        self._shifts = skips - (self._ends - takes)  # from rows to records of a shard
        indexed = index(self._paths)
        self._offsets = [indexed[path] for path in self._paths]
        for path, offsets, one in zip(self._paths, self._offsets, instructions, strict=True):
            if len(offsets) - 1 != one.examples_in_shard:
                raise _damaged(
                    path,
                    f"has {len(offsets) - 1} records, and dataset_info.json lists "
                    f"{one.examples_in_shard}",
                )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitems__(self, rows: Sequence[int]) -> list[bytes]:
        """The data of some records.

        Raises:
          UserError: a record is damaged, or its file cannot be read.
        """
        shards = np.searchsorted(self._ends, rows, side="right").tolist()
        numbers = (np.asarray(rows) + self._shifts[shards]).tolist()
        spans = [
            Span(self._paths[shard], *self._offsets[shard][number : number + 2].tolist())
            for shard, number in zip(shards, numbers, strict=True)
        ]
        try:
            read = read_spans(spans)
        except OSError as error:
            raise _unreadable(error) from error
        return [_data(*one) for one in zip(read, spans, numbers, strict=True)]


def index(paths: Iterable[str]) -> Offsets:
    """Where the records of some files of one folder begin.

    The index is stored in the folder, or in the cache folder if that cannot be written, and is made
    again for files that changed.

    Raises:
      UserError: a file is missing, damaged or truncated.
    """
    paths = list(dict.fromkeys(paths))
    if not paths:
        return {}
    folder = os.path.dirname(paths[0])
    marks = _marks(folder, paths)
    known = _stored(folder)
    found = {path: known[_key(path, marks)] for path in paths if _key(path, marks) in known}
    missing = [path for path in paths if path not in found]
    if missing:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            sizes = (int(marks[path].split()[0]) for path in missing)
            found |= zip(missing, pool.map(_scan, missing, sizes), strict=True)
        names = set(map(os.path.basename, paths))
        kept = {key: known[key] for key in known if key.rsplit(" ", 2)[0] not in names}
        _store(folder, kept | {_key(path, marks): found[path] for path in paths})
    return found


def _marks(folder: str, paths: Sequence[str]) -> dict[str, str]:
    """The size of each file, and what changes with its content: a time or a version."""
    if in_bucket(folder):
        marks = {entry.url: entry.mark for entry in buckets.entries(folder) if entry.mark}
        if lost := [path for path in paths if path not in marks]:
            raise _damaged(lost[0], "does not exist")
        return marks
    try:
        stats = [os.stat(path) for path in paths]
    except OSError as error:
        raise _unreadable(error) from error
    return {
        path: f"{stat.st_size} {stat.st_mtime_ns}" for path, stat in zip(paths, stats, strict=True)
    }


def _key(path: str, marks: Mapping[str, str]) -> str:
    return f"{os.path.basename(path)} {marks[path]}"


def _scan(path: str, size: int) -> np.ndarray:
    """Where the records of a file begin, and its end; only their lengths are checked."""
    most = BUCKET_BLOCK if in_bucket(path) else LOCAL_BLOCK
    offsets, at, start, block = [0], 0, 0, b""
    while at < size:
        if at + HEADER > start + len(block):
            try:
                start, (block,) = at, read_spans([Span(path, at, at + most)])
            except OSError as error:
                raise _unreadable(error) from error
        header = block[at - start : at - start + HEADER]
        length = _length(header)
        if len(header) < HEADER or (length is not None and at + _extent(length) > size):
            raise _damaged(path, f"is truncated in record {len(offsets) - 1}, at byte {at}")
        if length is None:
            raise _wrong(path, len(offsets) - 1, at)
        at += _extent(length)
        offsets.append(at)
    return np.asarray(offsets, np.int64)


def _length(header: bytes) -> int | None:
    """Number of bytes of a record's data; None if its checksum is wrong."""
    if len(header) < HEADER:
        return None
    length, checksum = struct.unpack("<QI", header)
    return length if checksum == masked_crc(header[:8]) else None


def _extent(length: int) -> int:
    return HEADER + length + FOOTER


def _data(content: bytes, span: Span, number: int) -> bytes:
    """The data of one record.

    Raises:
      UserError: a checksum is wrong.
    """
    data, footer = content[HEADER:-FOOTER], content[-FOOTER:]
    if _length(content[:HEADER]) != len(data) or footer != struct.pack("<I", masked_crc(data)):
        raise _wrong(span.path, number, span.start)
    return data


def masked_crc(data: bytes) -> int:
    """The checksum of TFRecord files: CRC32C, rotated by 15 bits and shifted by a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _places(folder: str) -> list[Path]:
    """Files that may hold the index, the preferred one first."""
    from jaxclr.runs.trust import cache_folder  # imports what data workers do not need

    name = hashlib.sha256(folder.encode(errors="surrogateescape")).hexdigest()[:32]
    return [expanded(folder) / INDEX, cache_folder() / "tfrecord" / f"{name}.npz"]


def _stored(folder: str) -> dict[str, np.ndarray]:
    """What is stored of the index, by file name, size and mark; a damaged one counts as none."""
    found: dict[str, np.ndarray] = {}
    for place in _places(folder):
        with (
            contextlib.suppress(Exception),  # NumPy, zipfile and clients raise many kinds
            np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as file,
        ):
            parts = np.split(file["offsets"], np.cumsum(file["counts"])[:-1])
            found |= zip(file["files"].tolist(), parts, strict=True)
    return found


def _store(folder: str, known: Mapping[str, np.ndarray]) -> None:
    from jaxclr.runs.files import write_atomically

    content = io.BytesIO()
    np.savez(
        content,
        files=np.asarray(list(known)),
        counts=np.asarray([len(offsets) for offsets in known.values()]),
        offsets=np.concatenate(list(known.values())),
    )
    for place in _places(folder):
        with contextlib.suppress(Exception):  # as in `_stored`; the index is made again
            if in_bucket(place):
                place.write_bytes(content.getvalue())
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, content.getvalue())
            return


def _wrong(path: str, number: int, offset: int) -> UserError:
    return _damaged(path, f"has a wrong checksum in record {number}, at byte {offset}")


def _damaged(path: str, why: str) -> UserError:
    return UserError(
        f"'{displayable(path)}' {why}. Delete the folder and prepare the data set again."
    )


def _unreadable(error: OSError) -> UserError:
    return _damaged(str(error.filename), f"cannot be read ({reason(error)})")
