"""What every source returns, and the checks and splits that they share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from jaxclr.data.config import Data
from jaxclr.errors import UserError


class Split(NamedTuple):
    """Images, uint8 [N, H, W, C], and their labels, int32 [N], or None if there are none."""

    images: np.ndarray
    labels: np.ndarray | None


class Dataset(NamedTuple):
    """A train split, a test split if there is one, class names by label, and files left out."""

    name: str
    train: Split
    test: Split | None
    classes: tuple[str, ...]
    skipped: tuple[str, ...]


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
