"""Parts of files, read in few requests."""

import io
import threading
from collections.abc import Sequence
from typing import IO, NamedTuple

from jaxclr.data import buckets
from jaxclr.paths import in_bucket

GAP = 2**16  # spans of a file that are at most this far apart are read in one request
MOST = 2**23  # bytes of such a request


class Span(NamedTuple):
    """Bytes `start` to `end` of a file."""

    path: str
    start: int
    end: int


def read_spans(spans: Sequence[Span]) -> list[bytes]:
    """The bytes of each span; fewer where the file ends before.

    Raises:
      OSError: a local file cannot be read.
      UserError: a file in a bucket cannot be read.
    """
    found = [b""] * len(spans)
    groups = _merged(spans)
    contents = _read([_hull(spans, group) for group in groups])
    for members, content in zip(groups, contents, strict=True):
        first = spans[members[0]].start
        for member in members:
            _, start, end = spans[member]
            found[member] = content[start - first : end - first]
    return found


class Batch:
    """Spans that are read together when the first of them is opened."""

    def __init__(self, spans: Sequence[Span]):
        self._spans = spans
        self._lock = threading.Lock()
        self._found: dict[int, bytes] | None = None

    def open(self, index: int) -> IO[bytes]:
        """The bytes of a span, which are read again when it is opened again.

        Raises:
          OSError: as of `read_spans`.
        """
        with self._lock:
            if self._found is None:
                self._found = dict(enumerate(read_spans(self._spans)))
            content = self._found.pop(index, None)
        return io.BytesIO(read_spans([self._spans[index]])[0] if content is None else content)


def _merged(spans: Sequence[Span]) -> list[list[int]]:
    """Indices of spans that are read together, each group in order of the file."""
    groups: list[list[int]] = []
    last = Span("", 0, 0)
    for index in sorted(range(len(spans)), key=spans.__getitem__):
        span = spans[index]
        near = span.path == last.path and span.start - last.end <= GAP
        if near and span.end - last.start <= MOST:
            groups[-1].append(index)
            last = last._replace(end=max(last.end, span.end))
        else:
            groups.append([index])
            last = span
    return groups


def _hull(spans: Sequence[Span], group: Sequence[int]) -> Span:
    first = spans[group[0]]
    return first._replace(end=max(spans[index].end for index in group))


def _read(spans: Sequence[Span]) -> list[bytes]:
    if spans and in_bucket(spans[0].path):
        return buckets.read_ranges(*map(list, zip(*spans, strict=True)))
    found = []
    for path, start, end in spans:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            found.append(file.read(end - start))
    return found
