"""Images and labels of a split, in memory or streamed, a batch at a time."""

from collections.abc import Iterator

import numpy as np

from jaxclr.data import Split, Stream

_FILES = 10_000  # whose labels are read at once


def image_batches(
    split: Split | Stream, *, size: int | None, batch: int, rows: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images, uint8 [b, H, W, C], and their labels, int32 [b], in the order of the rows.

    Images in memory come as they are; those of a stream as squares, without the damaged ones, whose batches are smaller.

    Args:
      split: N images.
      size: side in pixels of streamed images; None: there are none.
      batch: how many at a time; the last are fewer.
      rows: places in the split, [n]; None: all, in order.
    """
    rows = np.arange(split.size) if rows is None else rows
    if isinstance(split, Split):
        labels = np.full(split.size, -1, np.int32) if split.labels is None else split.labels
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            yield split.examples[some], labels[some]
        return
    first = 0
    for found in split.plain(size, batch=batch, indices=rows.tolist()):
        asked = rows[first : first + len(found.made)]
        first += len(found.made)
        kept = np.flatnonzero(found.indices == asked)
        if len(kept):
            yield np.stack([found.made[row][0] for row in kept]), found.labels[kept]


def labels_of(split: Split | Stream) -> np.ndarray:
    """Labels of all images, int32 [N], without decoding any."""
    if isinstance(split, Split):
        return split.labels
    starts = range(0, split.size, _FILES)
    files = (split.stored.read(split.rows[start : start + _FILES].tolist()) for start in starts)
    return np.asarray([label for some in files for _, label in some], np.int32)
