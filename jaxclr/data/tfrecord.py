"""Random access to the records of TFRecord files, through an index of their offsets.

A record is the length of its data (uint64), the checksum of the length, the data and their
checksum. Checksums are masked CRC32C (uint32); all numbers are little-endian.
"""

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np

from jaxclr.data.index_cache import indexes
from jaxclr.data.spans import Span, read_spans
from jaxclr.errors import UserError, reason
from jaxclr.paths import in_bucket
from jaxclr.text import displayable

HEADER, FOOTER = 12, 4  # bytes before and after the data of a record
LOCAL_BLOCK, BUCKET_BLOCK = 2**14, 2**23  # bytes read at a time for an index

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
    """Where the records of some files begin; see `indexes`.

    Raises:
      UserError: a file is missing, damaged or truncated.
    """
    try:
        found = indexes(paths, _scan, name="tfrecord")
    except OSError as error:
        raise _unreadable(error) from error
    return {path: index["offsets"] for path, index in found.items()}


def _scan(path: str, size: int) -> dict[str, np.ndarray]:
    """Where the records of a file begin, and its end; only their lengths are checked."""
    most = BUCKET_BLOCK if in_bucket(path) else LOCAL_BLOCK
    offsets, at, start, block = [0], 0, 0, b""
    while at < size:
        if at + HEADER > start + len(block):
            start, (block,) = at, read_spans([Span(path, at, at + most)])
        header = block[at - start : at - start + HEADER]
        length = _length(header)
        if len(header) < HEADER or (length is not None and at + _extent(length) > size):
            raise _damaged(path, f"is truncated in record {len(offsets) - 1}, at byte {at}")
        if length is None:
            raise _wrong(path, len(offsets) - 1, at)
        at += _extent(length)
        offsets.append(at)
    return {"offsets": np.asarray(offsets, np.int64)}


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


def _wrong(path: str, number: int, offset: int) -> UserError:
    return _damaged(path, f"has a wrong checksum in record {number}, at byte {offset}")


def _damaged(path: str, why: str) -> UserError:
    return UserError(
        f"'{displayable(path)}' {why}. Delete the folder and prepare the data set again."
    )


def _unreadable(error: OSError) -> UserError:
    return _damaged(str(error.filename), f"cannot be read ({reason(error)})")
