"""Data sets of encoded images whose labels are known: in memory or streamed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxclr.data.dataset import (
    Dataset,
    Split,
    index_labels,
    note_on_unlabeled,
    split_rows,
    why_streamed,
)
from jaxclr.data.images import decode_all, first_shape, notes_on, unreadable
from jaxclr.data.pixels import Unreadable
from jaxclr.data.source_options import Data
from jaxclr.data.stream import Stored, Stream
from jaxclr.text import displayable

FILES = 4096  # that are named at a time


class Part(NamedTuple):
    """Encoded images of one split.

    Attributes:
      stored: the images; their labels are those of `labels`.
      rows: rows of the split in `stored`, int64 [N].
      labels: int32 [N], -1 for unlabeled images; None if all are unlabeled.
    """

    stored: Stored
    rows: np.ndarray
    labels: np.ndarray | None

    def take(self, indices: np.ndarray) -> "Part":
        """Some of the images."""
        labels = None if self.labels is None else self.labels[indices]
        return self._replace(rows=self.rows[indices], labels=labels)


def load_parts(
    name: str,
    parts: tuple[Part, Part | None],
    classes: Sequence[str],
    data: Data,
    *,
    notes: tuple[str, ...] = (),
    left_out: tuple[Unreadable, ...] = (),
    version: str = "",
) -> Dataset:
    """The data set of two splits; a missing test split is drawn from training.

    Args:
      name: of the data set.
      parts: train and test.
      classes: names of the classes.
      data: how images are read.
      notes: sentences for the user.
      left_out: what was found to be unreadable before.
      version: see `Dataset`.

    Raises:
      UserError: images are left out or damaged, do not fit into memory, or differ in size or
        channels.
    """
    if left_out and not data.skip_corrupt:
        raise unreadable(left_out)
    train, test = parts
    if test is None:
        rows, test_rows = split_rows(len(train.rows), train.labels, data.test_fraction)
        train, test = train.take(rows), None if test_rows is None else train.take(test_rows)
    parts_ = [train] if test is None else [train, test]
    files = (part.stored.read([row])[0][0] for part in parts_ for row in part.rows.tolist())
    like = first_shape(files, data)
    composed = 0
    splits: list[Split | Stream] = []
    why = why_streamed(sum(len(part.rows) for part in parts_), like[1], data)
    for label, part in zip(("training", "test"), parts_, strict=False):
        if part.labels is not None:
            notes += note_on_unlabeled(label, part.labels)
        if why is not None:
            labeled = part.labels is not None
            splits.append(Stream(part.stored, part.rows, labeled, like[1][2], data, why))
            continue
        split, more, composed_here = _decode(part, data, like)
        splits.append(split)
        left_out, composed = left_out + more, composed + composed_here
    notes += notes_on(left_out, composed, data)
    skipped = tuple(error.name for error in left_out)
    return Dataset(name, splits[0], (*splits, None)[1], tuple(classes), skipped, notes, version)


def _decode(
    part: Part, data: Data, like: tuple[str, tuple, int]
) -> tuple[Split, tuple[Unreadable, ...], int]:
    names: list[str] = []

    def chunks():
        for start in range(0, len(part.rows), FILES):
            files = [
                file for file, _ in part.stored.read(part.rows[start : start + FILES].tolist())
            ]
            names.extend(file.name for file in files)
            yield files

    images, rows, left_out, composed = decode_all(chunks(), len(part.rows), data, like)
    labels = None if part.labels is None else part.labels[rows]
    return Split(images, labels, [names[row] for row in rows]), left_out, composed


def label_indices(
    name: str, train: np.ndarray, test: np.ndarray | None, classes: Sequence[str] | None = None
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...]]:
    """Labels as class indices, and the classes.

    Args:
      name: of the data set, in errors.
      train: label of each image of train, objects [N]: int or str; None or -1: no label.
      test: of test, likewise.
      classes: their names, if labels are class indices already.

    Returns:
      Indices of train and of test, int32 [N], -1 for no label, None if all are unlabeled; class
      names.

    Raises:
      UserError: test has a label that train lacks, or a label is below -1.
    """
    given = [train] if test is None else [train, test]
    known = [np.array([label is not None for label in labels], bool) for labels in given]
    every = [label for some, has in zip(given, known, strict=True) for label in some[has]]
    kind = np.int64 if all(isinstance(label, int) for label in every) else np.str_
    values = [labels[has].astype(kind) for labels, has in zip(given, known, strict=True)]
    if not classes:
        first, second, classes = index_labels(name, values[0], (*values, None)[1])
        values = [first] if second is None else [first, second]
    found = []
    for indices, has in zip(values, known, strict=True):
        full = np.full(len(has), -1, np.int32)
        full[has] = indices
        found.append(full if (full >= 0).any() else None)
    return found[0], (*found, None)[1], tuple(map(displayable, classes))
