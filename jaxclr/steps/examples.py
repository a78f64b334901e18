"""Batches of a split without augmentation, and functions of all its examples."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxclr import trees
from jaxclr.data import Records, Split, Stream

Tree = Any

BATCH = 250  # examples embedded at once
_FILES = 10_000  # files whose labels are read at once


class Examples(NamedTuple):
    """Some examples of a split.

    Attributes:
      data: arrays [n, ...] of any type, in a tree; images are one array, uint8 [n, H, W, C].
      indices: into the split, int [n].
      labels: int32 [n]; -1 without labels.
      names: their files; None without files.
      seen: how many of the requested rows are done, damaged ones included.
    """

    data: Tree
    indices: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None
    seen: int


def batches(
    split: Split | Stream | Records,
    *,
    size: int | None,
    batch: int = BATCH,
    rows: Sequence[int] | np.ndarray | None = None,
    replace_damaged: bool = False,
) -> Iterator[Examples]:
    """Examples of a split, in the order of the rows.

    Args:
      split: N examples.
      size: side in pixels of streamed images, as squares; None for a split in memory.
      batch: examples in a batch; the last batch may be smaller.
      rows: indices into the split, [n]; None for all, in order.
      replace_damaged: replace a damaged image by the one after it, so that every row has an
        example; otherwise damaged images are omitted, and their batches are smaller.
    """
    rows = np.arange(split.size) if rows is None else np.asarray(rows)
    if isinstance(split, Split):
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            labels = (
                np.full(len(some), -1, np.int32) if split.labels is None else split.labels[some]
            )
            names = None if split.names is None else [split.names[int(row)] for row in some]
            yield Examples(trees.take(split.examples, some), some, labels, names, start + len(some))
        return
    if isinstance(split, Records):
        for start in range(0, len(rows), batch):
            found = split.read(rows[start : start + batch].tolist())
            yield Examples(
                found.examples, found.indices, found.labels, None, start + len(found.labels)
            )
        return
    assert size is not None  # streamed images are resized to it
    seen = 0
    for found in split.plain(size, batch=batch, indices=rows.tolist()):
        asked = rows[seen : seen + len(found.made)]
        seen += len(found.made)
        kept = np.flatnonzero((found.indices == asked) | replace_damaged)
        if len(kept):
            images = np.stack([found.made[row][0] for row in kept])
            names = [found.names[row] for row in kept]
            yield Examples(images, found.indices[kept], found.labels[kept], names, seen)


def labels_of(split: Split | Stream | Records) -> np.ndarray:
    """Labels of all examples of a labeled split, int32 [N], without reading the examples."""
    if isinstance(split, Split):
        assert split.labels is not None  # callers need a labeled split
        return split.labels
    if isinstance(split, Records):
        return split.labels()
    starts = range(0, split.size, _FILES)
    files = (split.stored.read(split.rows[start : start + _FILES].tolist()) for start in starts)
    return np.asarray([label for some in files for _, label in some], np.int32)


def fill(data: Tree, batch: int) -> Tree:
    """Fills up a batch: after the last examples come the first ones again."""
    return trees.take(data, np.arange(batch) % trees.size_of(data))


def apply_in_batches(function: Callable[[Tree], Tree], data: Tree, *, batch: int = BATCH) -> Tree:
    """Applies a function to batches of one size, so that it is compiled once.

    Args:
      function: maps a tree of arrays [batch, ...] to arrays with as many rows.
      data: n examples.
      batch: examples in a batch; the last batch is filled up.

    Returns:
      The outputs of the function, arrays with n rows on the host.
    """
    total = trees.size_of(data)
    starts = range(0, total, batch)
    some = [
        function(fill(trees.take(data, slice(start, start + batch)), batch)) for start in starts
    ]
    return jax.tree.map(
        lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:total], *some
    )
