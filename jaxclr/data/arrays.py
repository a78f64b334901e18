"""Data sets given as arrays."""

import dataclasses
import zlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxclr import trees
from jaxclr.data.conversion import looks_channels_first
from jaxclr.data.dataset import Dataset, Split, index_labels, note_on_unlabeled
from jaxclr.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """Examples in memory: a numeric array [N, ...] or a dict of such arrays.

    A single uint8 array [N, H, W, C] holds images: they are normalized by channel, and the views of
    this library accept them. Other data are passed to the views unchanged.

    >>> series = np.zeros((100, 50, 3), np.float32)
    >>> Arrays({"series": series}, labels=np.arange(100) % 4).size
    100

    Args:
      train: the training examples.
      labels: integer or string labels [N], or None; -1 means no label. With `classes`, integers are
        indices of `classes`.
      test: held-out examples of the same structure, or None.
      test_labels: labels of the held-out examples.
      classes: class names; if empty, the sorted values of `labels`.
      mean: mean of each image channel, in units of [0, 1]; None: computed from `train`.
      std: standard deviation of each channel, likewise.

    Raises:
      UserError: arrays differ in length or are not numeric, or labels do not match them.
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
                "data.Arrays needs train and test rows of one shape and type, got "
                f"{rows[0]} and {rows[1]}."
            )

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(trees.leaves(self.train)[0])

    @property
    def digest(self) -> str:
        """A checksum of all arrays."""
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
    """The train and test splits of arrays."""
    labels, test_labels, classes = data.labels, data.test_labels, tuple(map(str, data.classes))
    if labels is not None and not classes:
        test_labels = None if test_labels is None else np.asarray(test_labels)
        labels, test_labels, classes = index_labels("data.Arrays", np.asarray(labels), test_labels)
    split = lambda examples, labels: Split(
        trees.map_leaves(np.asarray, examples),
        None if labels is None else np.asarray(labels, np.int32),
    )
    train = split(data.train, labels)
    test = None if data.test is None else split(data.test, test_labels)
    notes: tuple[str, ...] = ()
    for name, some in (("training", train), ("test", test)):
        if some is not None and some.labels is not None:
            notes += note_on_unlabeled(name, some.labels)
    return Dataset("arrays", train, test, classes, (), notes)


def _one(examples: Any) -> Any:
    return trees.map_leaves(lambda leaf: np.asarray(leaf)[:1], examples)


def _check_examples(name: str, examples: Any) -> None:
    found = [(leaf, np.asarray(array)) for leaf, array in trees.named_leaves(examples)]
    if not found:
        raise UserError(
            f"data.Arrays {name} has no array; give an array [N, ...] or a dict of them."
        )
    lengths = set()
    for leaf, array in found:
        label = f"{name}['{leaf}']" if leaf else name
        if array.dtype.kind not in "biufc":
            raise UserError(
                f"data.Arrays {label} has type {array.dtype}; give numbers (encode text as "
                "integers)."
            )
        if array.ndim == 0 or len(array) == 0:
            raise UserError(f"data.Arrays {label} has shape {array.shape}; give [N, ...], N > 0.")
        if len(found) == 1 and array.dtype == np.uint8 and looks_channels_first(array.shape):
            raise UserError(
                f"data.Arrays {label} of shape {list(array.shape)} look like images [N, C, H, W]; "
                "give np.moveaxis(images, 1, -1). If they are not images, give another type than "
                "uint8."
            )
        lengths.add(len(array))
    if len(lengths) > 1:
        raise UserError(
            f"data.Arrays {name} needs the same number of rows in every array, got "
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
            f"data.Arrays {name} must have shape [{count}], one label per row, got "
            f"{list(labels.shape)}."
        )
    if classes:
        if labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= len(classes):
            raise UserError(
                f"data.Arrays {name} must be integers from 0 to {len(classes) - 1}, one for each "
                f"of the {len(classes)} classes, or -1 for no label; got {labels.dtype} from "
                f"{labels.min()} to {labels.max()}."
            )
    elif labels.dtype.kind not in "iuU":
        raise UserError(f"data.Arrays {name} must be integers or strings, got {labels.dtype}.")
