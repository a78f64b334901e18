"""The data set that every source returns, and shared checks and splits."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxclr import trees
from jaxclr.data.source_options import Data
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError
from jaxclr.text import displayable

if TYPE_CHECKING:
    from jaxclr.data.random_access import Records


# Names of splits, in any case; of several test splits, the first one is taken.
TRAIN_NAMES = ("train", "training")
TEST_NAMES = (
    *("test", "testing", "val", "valid", "validation"),
    *("dev", "eval", "evaluation", "holdout"),
)


class Split(NamedTuple):
    """Examples in memory.

    Attributes:
      examples: images uint8 [N, H, W, C], or another tree of arrays [N, ...].
      labels: int32 [N], -1 for unlabeled examples; or None if all are unlabeled.
      names: the file of each example, if they come from files.
    """

    examples: Any
    labels: np.ndarray | None
    names: Sequence[str] | None = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return trees.size_of(self.examples)

    @property
    def channels(self) -> int | None:
        """Number of image channels; None for other data."""
        images = trees.images_of(self.examples)
        return None if images is None else images.shape[-1]

    @property
    def labeled(self) -> bool:
        """Whether any example has a label."""
        return self.labels is not None and bool((self.labels >= 0).any())


class Dataset(NamedTuple):
    """A train split and an optional test split; both are in memory, or both are streamed.

    Attributes:
      name: of the data set.
      train: the training split.
      test: the test split, or None.
      classes: class names, indexed by label.
      skipped: files that could not be read and were left out.
      notes: sentences for the user on what was left out or converted, and on the splits.
      version: name and version of prepared data that never change; "" for others.
      files: fingerprints of files of a bucket, by path in the data set's folder; None for others.
    """

    name: str
    train: "Split | Stream | Records"
    test: "Split | Stream | Records | None"
    classes: tuple[str, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()
    version: str = ""
    files: Mapping[str, str] | None = None


def why_streamed(count: int, shape: tuple[int, ...], data: Data) -> str | None:
    """The reason to stream N images of [H, W, C] bytes; None to load them into memory.

    Raises:
      UserError: the images do not fit, and data.streaming is "never"; see `check_memory`.
    """
    size = count * math.prod(shape) / 2**30
    if data.streaming == "always":
        return "data.streaming is always"
    if data.streaming == "auto" and size > data.memory_limit:
        return (
            f"in memory they would take {size:.3g} GiB, "
            f"and data.memory_limit is {data.memory_limit:g}"
        )
    check_memory(count, shape, data, resizable=True)
    return None


def check_not_streamed(data: Data) -> None:
    """Raises UserError if streaming is requested of a source of arrays."""
    if data.streaming == "always":
        raise UserError(
            f"'{displayable(data.source)}' holds arrays, not image files, and cannot be streamed. "
            "Leave --data.streaming out."
        )


def check_memory(count: int, shape: tuple[int, ...], data: Data, *, resizable: bool) -> None:
    """Raises UserError if N images of [H, W, C] bytes exceed data.memory_limit.

    Args:
      count: number of images, over all splits.
      shape: height, width and channels after resizing.
      data: for its memory_limit, in GiB.
      resizable: whether data.image_size applies to this source.

    Raises:
      UserError: the images do not fit; the message suggests a limit and a size that do.
    """
    limit = data.memory_limit * 2**30
    size = count * math.prod(shape)
    if size <= limit:
        return
    need = math.ceil(size / 2**30 * 100) / 100
    remedy = f"Set --data.memory-limit {need:g} if this machine has that much memory free"
    remedy += ", --data.streaming auto" * resizable
    side = math.isqrt(int(limit / (count * shape[2])))
    if resizable and side >= 8:
        remedy += f", or --data.image-size {side} or less"
    raise UserError(
        f"{count} images of {'x'.join(map(str, shape))} take {size / 2**30:.2f} GiB in memory; "
        f"data.memory_limit is {data.memory_limit:g} GiB. {remedy}."
    )


def check_fixed_size(shape: tuple[int, ...], data: Data) -> None:
    """Raises UserError if a source of arrays [N, H, W, ...] is asked to resize its images."""
    size = data.image_size
    if size is not None and tuple(shape[1:3]) != (size, size):
        raise UserError(
            f"'{displayable(data.source)}' holds arrays of {shape[1]}x{shape[2]}, which are not "
            "resized. Leave --data.image-size out, or resize the images before storing them."
        )


def split_rows(
    count: int, labels: np.ndarray | None, fraction: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Row indices of a fixed train and test split, stratified if there are labels.

    Of rows with labels and others (-1), those with labels are split, and the others are for
    training.

    Args:
      count: number of rows.
      labels: [count], or None.
      fraction: share of the test split; 0: no test split.

    Raises:
      UserError: there are too few rows, in total or in one class.
    """
    rows = np.arange(count)
    if fraction == 0:
        return rows, None
    if labels is not None and (labels < 0).any():
        known = np.flatnonzero(labels >= 0)
        _, test = split_rows(len(known), labels[known] if len(known) else None, fraction)
        return np.setdiff1d(rows, known[test]), known[test]
    # Imported here because workers, which never split, would take twice as long to start.
    from sklearn.model_selection import train_test_split

    try:
        # The seed is fixed: the split depends on the data, not on the run.
        train, test = train_test_split(rows, test_size=fraction, random_state=0, stratify=labels)
    except ValueError as error:
        raise UserError(
            f"{count} images cannot be split by data.test_fraction = {fraction:g}: "
            f"{str(error).rstrip('.')}. Set another --data.test-fraction; 0 makes no test split."
        ) from error
    return np.sort(train), np.sort(test)


def index_labels(
    name: str, train: np.ndarray, test: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Integer or string labels as indices of the sorted values of train; -1 stays -1: no label.

    Raises:
      UserError: test has a label that train lacks, or a label is below -1.
    """
    values = np.unique(train[_known(train)])
    if values.dtype.kind in "iu" and len(values) and values[0] < 0:
        raise UserError(
            f"{name}: a label is {values[0]}; give integers from 0, or -1 for no label."
        )
    classes = tuple(displayable(str(value)) for value in values)
    if test is None:
        return _indices(values, train), None, classes
    strange = np.setdiff1d(test[_known(test)], values)
    if strange.size and len(values):
        raise UserError(
            f"{name}: label '{displayable(str(strange[0]))}' is in test but not in train, which "
            f"has {abbreviate(classes)}. Remove those rows or add the class to train."
        )
    if strange.size:  # Train has no labels at all.
        _, indices, classes = index_labels(name, test, test)
        return np.full(train.shape, -1, np.int32), indices, classes
    return _indices(values, train), _indices(values, test), classes


def _known(labels: np.ndarray) -> np.ndarray:
    return labels != -1 if labels.dtype.kind in "iu" else np.ones(labels.shape, bool)


def _indices(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(_known(labels), np.searchsorted(values, labels), -1).astype(np.int32)


def note_on_unlabeled(name: str, labels: np.ndarray) -> tuple[str, ...]:
    """A sentence on the examples with the label -1, if there are others too."""
    missing = int((labels < 0).sum())
    if missing in (0, len(labels)):
        return ()
    return (f"{missing} of the {len(labels)} {name} examples have no label (-1).",)


def abbreviate(names: Sequence[str], most: int = 8) -> str:
    """The first few names on one line, and how many more there are."""
    rest = len(names) - most
    return ", ".join(map(displayable, names[:most])) + (f" and {rest} more" if rest > 0 else "")
