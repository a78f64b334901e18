"""Data sets in .npz files, in the layouts of numpy.savez and Keras."""

import pathlib
import zipfile
from typing import NamedTuple

import numpy as np

from jaxclr.data.dataset import (
    Dataset,
    Split,
    abbreviate,
    check_fixed_size,
    check_memory,
    check_not_streamed,
    index_labels,
    split_rows,
)
from jaxclr.data.images import convert_channels
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError
from jaxclr.paths import expanded


class Keys(NamedTuple):
    """Names of the arrays in one layout."""

    train_images: str
    train_labels: str
    test_images: str | None = None
    test_labels: str | None = None


LAYOUTS = (
    Keys("train_images", "train_labels", "test_images", "test_labels"),
    Keys("x_train", "y_train", "x_test", "y_test"),
    Keys("images", "labels"),
)


class Header(NamedTuple):
    """Shape and type of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def load(argument: str, data: Data) -> Dataset:
    """Reads x_train, y_train, x_test, y_test, or train_images, ..., or images, labels.

    These are `LAYOUTS`. Labels are optional, integers or strings. Nothing is unpickled.
    """
    check_not_streamed(data)
    path = expanded(argument)
    if not path.is_file():
        raise UserError(f"There is no file '{path}'.")
    if not zipfile.is_zipfile(path):
        raise UserError(f"'{path}' is not an .npz file; write it with numpy.savez.")
    try:
        headers = _headers(path)
        keys = _layout(path, headers)
        splits: list[tuple[str, str]] = [(keys.train_images, keys.train_labels)]
        if keys.test_images in headers and keys.test_labels is not None:
            splits.append((keys.test_images, keys.test_labels))
        for images, labels in splits:
            _check(path, headers, images, labels, data)
        shapes = [_rank4(headers[images].shape) for images, _ in splits]
        if shapes[0][1:] != shapes[-1][1:]:
            raise UserError(
                f"'{path}': {splits[0][0]} are {shapes[0][1:]} and {splits[1][0]} are "
                f"{shapes[1][1:]} (height, width, channels); give both the same shape."
            )
        channels = {"rgb": 3, "gray": 1, "as_is": shapes[0][3]}[data.channels]
        count = sum(shape[0] for shape in shapes)
        check_memory(count, (*shapes[0][1:3], channels), data, resizable=False)
        with np.load(path, allow_pickle=False) as file:
            arrays = [
                (
                    convert_channels(file[images].reshape(shape), data),
                    file[labels].reshape(-1) if labels in headers else None,
                )
                for (images, labels), shape in zip(splits, shapes, strict=True)
            ]
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise different errors for damage.
        raise UserError(f"'{path}' is damaged and cannot be read ({error}).") from error

    train_x, train_y = arrays[0]
    test_x, test_y = arrays[1] if len(arrays) == 2 else (None, None)
    classes: tuple[str, ...] = ()
    if train_y is not None:
        train_y, test_y, classes = index_labels(f"'{path}'", train_y, test_y)
    elif test_y is not None:
        raise UserError(
            f"'{path}' has {keys.test_labels} but no {keys.train_labels}; store both or neither."
        )
    if test_x is None:
        train, test = split_rows(len(train_x), train_y, data.test_fraction)
        if test is not None:
            test_x, test_y = train_x[test], None if train_y is None else train_y[test]
            train_x, train_y = train_x[train], None if train_y is None else train_y[train]
    test_split = None if test_x is None else Split(test_x, test_y)
    return Dataset(path.stem, Split(train_x, train_y), test_split, classes, ())


def _headers(path: pathlib.Path) -> dict[str, Header]:
    """Shape and type of each array, without reading the arrays."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    if version == (1, 0):
                        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                    else:
                        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
                headers[name.removesuffix(".npy")] = Header(shape, dtype)
    return headers


def _layout(path: pathlib.Path, headers: dict[str, Header]) -> Keys:
    for keys in LAYOUTS:
        if keys.train_images in headers:
            return keys
    wanted = "; or ".join(", ".join(key for key in keys if key) for keys in LAYOUTS)
    got = abbreviate(sorted(headers)) or "no arrays"
    raise UserError(f"'{path}' has {got}; expected {wanted}.")


def _check(
    path: pathlib.Path, headers: dict[str, Header], images: str, labels: str, data: Data
) -> None:
    """Checks types, ranks and lengths of one split."""
    shape, dtype = headers[images]
    if dtype != np.uint8:
        raise UserError(
            f"'{path}': {images} must be uint8 of 0 to 255, got {dtype}. Convert them first."
        )
    if len(shape) not in (3, 4):
        raise UserError(f"'{path}': {images} must be [N, H, W] or [N, H, W, C], got shape {shape}.")
    if 0 in shape:
        raise UserError(f"'{path}': {images} are empty, shape {shape}.")
    check_fixed_size(shape, data)
    if labels not in headers:
        return
    label_shape, label_dtype = headers[labels]
    if label_dtype.kind not in "iuU":
        raise UserError(f"'{path}': {labels} must be integers or strings, got {label_dtype}.")
    if label_shape not in ((shape[0],), (shape[0], 1)):
        raise UserError(
            f"'{path}': {labels} must be one per image, [{shape[0]}], got shape {label_shape}."
        )


def _rank4(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if len(shape) == 4 else (*shape, 1)
