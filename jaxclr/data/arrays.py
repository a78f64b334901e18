"""Examples in memory that a program made itself."""

import dataclasses
import zlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxclr import trees
from jaxclr.data.dataset import Dataset, Split, index_labels
from jaxclr.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Examples in memory: an array [N, ...] or a dict of them, of any type of number.

    A single array uint8 [N, H, W, C] holds images: they are normalized by channel, and the views of
    this library take them. Other data reach the views as they are.

    >>> series = np.zeros((100, 50, 3), np.float32)
    >>> Arrays({"series": series}, labels=np.arange(100) % 4).size
    100

    Args:
      train: the training examples.
      labels: their labels, integers or strings [N], or None. Integers are indices of `classes`, if
        those are given; -1 is no label.
      test: held-out examples of the same structure, or None.
      test_labels: their labels.
      classes: names of the classes; empty: the sorted values of `labels`.
      mean: mean of each channel of images, scaled to [0, 1]; None: measured.
      std: standard deviation of each channel likewise.

    Raises:
      UserError: arrays differ in length, hold no numbers, or labels do not fit them.
    """

    train: Any
    labels: ArrayLike | None = None
    test: Any = None
    test_labels: ArrayLike | None = None
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_examples("train", self.train)
        _check_labels("labels", self.labels, len(trees.leaves(self.train)[0]), self.classes)
        if self.test is None:
            if self.test_labels is not None:
                raise UserError("data.Arrays has test_labels without test; give both or neither.")
            return
        _check_examples("test", self.test)
        _check_labels(
            "test_labels", self.test_labels, len(trees.leaves(self.test)[0]), self.classes
        )
        rows = [trees.describe(_one(split)) for split in (self.train, self.test)]
        if rows[0] != rows[1]:
            raise UserError(
                f"data.Arrays needs train and test of one kind, got {rows[0]} and {rows[1]} a row."
            )

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(trees.leaves(self.train)[0])

    @property
    def digest(self) -> str:
        """A checksum of all arrays: examples are the same where it is."""
        crc = 0
        for split in (self.train, self.labels, self.test, self.test_labels):
            for leaf in () if split is None else trees.leaves(split):
                array = np.ascontiguousarray(leaf)
                crc = zlib.crc32(f"{array.dtype} {array.shape}".encode(), crc)
                crc = zlib.crc32(
                    str(array.tolist()).encode() if array.dtype.hasobject else array.data, crc
                )
        return f"{crc:08x}"


def load(data: Arrays) -> Dataset:
    """The splits of arrays."""
    labels, test_labels, classes = data.labels, data.test_labels, tuple(map(str, data.classes))
    if labels is not None and not classes:
        labels, test_labels, classes = _index(np.asarray(labels), test_labels)
    split = lambda examples, labels: Split(
        trees.map_leaves(np.asarray, examples),
        None if labels is None else np.asarray(labels, np.int32),
    )
    test = None if data.test is None else split(data.test, test_labels)
    return Dataset("arrays", split(data.train, labels), test, classes, ())


def _index(labels: np.ndarray, test_labels: Any) -> tuple[np.ndarray, Any, tuple[str, ...]]:
    """Labels as indices of their sorted values; -1 stays no label."""
    test = None if test_labels is None else np.asarray(test_labels)
    if labels.dtype.kind in "iu" and (labels < 0).any():
        known = labels >= 0
        indices = np.full(labels.shape, -1, np.int32)
        known_test = None if test is None else test >= 0
        found = index_labels(
            "data.Arrays", labels[known], None if test is None else test[known_test]
        )
        indices[known] = found[0]
        if test is not None:
            test_indices = np.full(test.shape, -1, np.int32)
            test_indices[known_test] = found[1]
            test = test_indices
        return indices, test, found[2]
    return index_labels("data.Arrays", labels, test)


def _one(examples: Any) -> Any:
    return trees.map_leaves(lambda leaf: np.asarray(leaf)[:1], examples)


def _check_examples(name: str, examples: Any) -> None:
    found = [(leaf, np.asarray(array)) for leaf, array in trees.named_leaves(examples)]
    if not found:
        raise UserError(f"data.Arrays {name} holds no array; give [N, ...] or a dict of such.")
    lengths = set()
    for leaf, array in found:
        told = f"{name}['{leaf}']" if leaf else name
        if array.dtype.kind not in "biufc":
            raise UserError(
                f"data.Arrays {told} has type {array.dtype}; give numbers, text as integer codes."
            )
        if array.ndim == 0 or len(array) == 0:
            raise UserError(f"data.Arrays {told} has shape {array.shape}; give [N, ...], N > 0.")
        lengths.add(len(array))
    if len(lengths) > 1:
        raise UserError(
            f"data.Arrays {name} needs as many rows in every array, got "
            f"{trees.describe(trees.map_leaves(np.asarray, examples))}."
        )


def _check_labels(
    name: str, labels: ArrayLike | None, count: int, classes: tuple[str, ...]
) -> None:
    if labels is None:
        return
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise UserError(
            f"data.Arrays {name} must be [{count}], one a row, got {list(labels.shape)}."
        )
    if classes:
        if labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= len(classes):
            raise UserError(
                f"data.Arrays {name} must be integers from 0 to {len(classes) - 1}, one for each of the "
                f"{len(classes)} classes, or -1 for none; got {labels.dtype} from {labels.min()} to {labels.max()}."
            )
    elif labels.dtype.kind not in "iuU":
        raise UserError(f"data.Arrays {name} must be integers or strings, got {labels.dtype}.")
