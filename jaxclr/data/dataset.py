"""What every source returns, and the checks and splits that they share."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxclr import trees
from jaxclr.data.source_options import Data
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError

if TYPE_CHECKING:
    from jaxclr.data.random_access import Records


class Split(NamedTuple):
    """Examples in memory: images uint8 [N, H, W, C], or another tree of arrays [N, ...].

    Their labels are int32 [N], -1 where an example has none, or None; `names` are their files, if they have any.
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
        """Of images; None for other data."""
        images = trees.images_of(self.examples)
        return None if images is None else images.shape[-1]

    @property
    def labeled(self) -> bool:
        return self.labels is not None


class Dataset(NamedTuple):
    """A train split, a test split if there is one, class names by label, and files left out.

    Both splits are in memory, or both are streamed.
    """

    name: str
    train: "Split | Stream | Records"
    test: "Split | Stream | Records | None"
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


def why_streamed(count: int, shape: tuple[int, ...], data: Data) -> str | None:
    """Why N images of [H, W, C] bytes are streamed, or None: they belong into memory.

    Raises:
      UserError: they do not fit, and data.streaming is "never"; see `check_memory`.
    """
    size = count * math.prod(shape) / 2**30
    if data.streaming == "always":
        return "data.streaming is always"
    if data.streaming == "auto" and size > data.memory_limit:
        return f"in memory they would take {size:.3g} GiB, and data.memory_limit is {data.memory_limit:g}"
    check_memory(count, shape, data, resizable=True)
    return None


def check_not_streamed(data: Data) -> None:
    """Refuses to stream a source that holds arrays."""
    if data.streaming == "always":
        raise UserError(
            f"'{data.source}' holds arrays, not image files, and cannot be streamed. Leave --data.streaming out."
        )


def check_memory(count: int, shape: tuple[int, ...], data: Data, *, resizable: bool) -> None:
    """Refuses N images of [H, W, C] bytes beyond data.memory_limit, before any is decoded.

    Args:
      count: images of all splits together.
      shape: height, width and channels after resizing.
      data: for its memory_limit, in GiB.
      resizable: whether a smaller data.image_size would help with this source.

    Raises:
      UserError: they do not fit; the message names a limit, and a size, at which they do.
    """
    limit = data.memory_limit * 2**30
    size = count * math.prod(shape)
    if size <= limit:
        return
    need = math.ceil(size / 2**30 * 100) / 100
    remedy = f"Set --data.memory-limit {need:g} if this machine has as much to spare"
    remedy += ", --data.streaming auto" * resizable
    side = math.isqrt(int(limit / (count * shape[2])))
    if resizable and side >= 8:
        remedy += f", or --data.image-size {side} or less"
    raise UserError(
        f"{count} images of {'x'.join(map(str, shape))} take {size / 2**30:.2f} GiB in memory; "
        f"data.memory_limit is {data.memory_limit:g} GiB. {remedy}."
    )


def check_fixed_size(shape: tuple[int, ...], data: Data) -> None:
    """Refuses to resize images [N, H, W, ...] of a source that holds arrays."""
    size = data.image_size
    if size is not None and tuple(shape[1:3]) != (size, size):
        raise UserError(
            f"'{data.source}' holds arrays of {shape[1]}x{shape[2]}, which are not resized. "
            "Leave --data.image-size out, or resize them before they are stored."
        )


def split_rows(
    count: int, labels: np.ndarray | None, fraction: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Row numbers of train and test: always the same ones, stratified where there are labels.

    Args:
      count: number of rows.
      labels: [count], or None.
      fraction: share of the test split; 0 gives None for it.

    Raises:
      UserError: too few rows for such a split, in all or of one class.
    """
    rows = np.arange(count)
    if fraction == 0:
        return rows, None
    # Half of what a worker process would spend on starting; it splits nothing.
    from sklearn.model_selection import train_test_split

    try:
        # The split belongs to the data, not to the run: its seed is fixed.
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
    """Labels of any integer or string values as indices of the sorted values of train.

    Raises:
      UserError: test holds a label that train lacks.
    """
    values, indices = np.unique(train, return_inverse=True)
    classes = tuple(str(value) for value in values)
    if test is None:
        return indices.astype(np.int32), None, classes
    strange = np.setdiff1d(test, values)
    if strange.size:
        raise UserError(
            f"{name}: label '{strange[0]}' is in test but not in train, which has "
            f"{abbreviate(classes)}. Remove those rows or add the class to train."
        )
    return indices.astype(np.int32), np.searchsorted(values, test).astype(np.int32), classes


def abbreviate(names: Sequence[str], most: int = 8) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
