"""Data sets in .npz files, in the layouts of numpy.savez and Keras."""

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from jaxclr.data import buckets
from jaxclr.data.conversion import (
    channels_last,
    channels_last_shape,
    looks_channels_first,
    to_bytes,
)
from jaxclr.data.dataset import (
    Dataset,
    Split,
    abbreviate,
    check_fixed_size,
    check_memory,
    check_not_streamed,
    index_labels,
    note_on_unlabeled,
    split_rows,
)
from jaxclr.data.images import convert_channels
from jaxclr.data.paths import check_is
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError, reason
from jaxclr.paths import Path, expanded, in_bucket
from jaxclr.text import displayable


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


HEADER_BYTES = 2**16  # of an array; NumPy's own limit is smaller, but comes after unpacking


class Header(NamedTuple):
    """Shape and type of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype


def load(argument: str, data: Data) -> Dataset:
    """Reads x_train, y_train, x_test, y_test, or train_images, ..., or images, labels.

    These are `LAYOUTS`. Images are uint8, or integers or floats that are converted without a loss;
    see `jaxclr.data.conversion`. Labels are optional, integers or strings. Nothing is unpickled.
    """
    check_not_streamed(data)
    path = expanded(argument)
    check_is(path, "a file")
    name = f"'{displayable(path)}'"
    place = _place(name, path, data)
    try:
        if not zipfile.is_zipfile(place()):
            raise UserError(f"{name} is not an .npz file; write it with numpy.savez.")
        headers = _headers(place())
        keys = _layout(name, headers)
        splits: list[tuple[str, str]] = [(keys.train_images, keys.train_labels)]
        if keys.test_images in headers and keys.test_labels is not None:
            splits.append((keys.test_images, keys.test_labels))
        if data.labels == "none":
            splits = [(images, "") for images, _ in splits]
        shapes = [_check(name, headers, images, labels, data) for images, labels in splits]
        if shapes[0][1:] != shapes[-1][1:]:
            raise UserError(
                f"{name}: {splits[0][0]} are {shapes[0][1:]} and {splits[1][0]} are "
                f"{shapes[1][1:]} (height, width, channels); give both the same shape."
            )
        channels = {"rgb": 3, "gray": 1, "as_is": shapes[0][3]}[data.channels]
        count = sum(shape[0] for shape in shapes)
        check_memory(count, (*shapes[0][1:3], channels), data, resizable=False)
        read = [member for pair in splits for member in pair if member in headers]
        _check_unpacked(name, headers, read, data)
        with np.load(place(), allow_pickle=False) as file:
            stored = [channels_last(file[images], data.layout) for images, _ in splits]
            pixels, notes = to_bytes(name, [images for images, _ in splits], stored)
            del stored
            labels = [file[key].reshape(-1) if key in headers else None for _, key in splits]
        images = [convert_channels(some, data) for some in pixels]
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise different errors for damage.
        raise UserError(f"{name} is damaged and cannot be read ({reason(error)}).") from error

    train_x, train_y = images[0], labels[0]
    test_x, test_y = (images[1], labels[1]) if len(images) == 2 else (None, None)
    classes: tuple[str, ...] = ()
    if train_y is not None:
        train_y, test_y, classes = index_labels(name, train_y, test_y)
        notes += note_on_unlabeled("stored" if test_x is None else "training", train_y)
        notes += () if test_y is None else note_on_unlabeled("test", test_y)
    elif test_y is not None:
        raise UserError(
            f"{name} has {keys.test_labels} but no {keys.train_labels}; store both or neither."
        )
    if test_x is None:
        train, test = split_rows(len(train_x), train_y, data.test_fraction)
        if test is not None:
            test_x, test_y = train_x[test], None if train_y is None else train_y[test]
            train_x, train_y = train_x[train], None if train_y is None else train_y[train]
    test_split = None if test_x is None else Split(test_x, test_y)
    stem = displayable(path.stem)
    return Dataset(stem, Split(train_x, train_y), test_split, classes, (), notes)


def _place(name: str, path: Path, data: Data) -> Callable[[], Any]:
    """A function that gives the path, or a stream of a file in a bucket, which is read whole."""
    if not in_bucket(path):
        return lambda: path
    size = buckets.size_of(str(path)) / 2**30
    if size > data.memory_limit:
        raise UserError(
            f"{name} has {size:.3g} GiB, and is read into memory; data.memory_limit is "
            f"{data.memory_limit:g} GiB. Set --data.memory-limit if this machine has that much "
            "memory free."
        )
    content = buckets.read_file(str(path))

    def rewound() -> io.BytesIO:
        content.seek(0)
        return content

    return rewound


def _headers(path: Any) -> dict[str, Header]:
    """Shape and type of each array, without reading the arrays."""
    headers = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    headers[name.removesuffix(".npy")] = _header(file, name)
    return headers


def _header(file: IO[bytes], name: str) -> Header:
    """The header of one array; its length is checked before it is unpacked."""
    version = np.lib.format.read_magic(file)
    size = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    if length > HEADER_BYTES:
        raise ValueError(f"the header of {displayable(name)} has {length} bytes")
    read = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    shape, _, dtype = read(io.BytesIO(size + file.read(length)))
    return Header(shape, dtype)


def _layout(name: str, headers: dict[str, Header]) -> Keys:
    for keys in LAYOUTS:
        if keys.train_images in headers:
            return keys
    wanted = "; or ".join(", ".join(key for key in keys if key) for keys in LAYOUTS)
    got = abbreviate(sorted(headers)) or "no arrays"
    raise UserError(f"{name} has {got}; expected {wanted}.")


def _check(
    name: str, headers: dict[str, Header], images: str, labels: str, data: Data
) -> tuple[int, ...]:
    """Checks types, ranks and lengths of one split; returns the images' shape as [N, H, W, C]."""
    shape, dtype = headers[images]
    if dtype.kind not in "buif":
        raise UserError(f"{name}: {images} must be numbers, best uint8 of 0 to 255, got {dtype}.")
    if len(shape) not in (3, 4):
        raise UserError(f"{name}: {images} must be [N, H, W] or [N, H, W, C], got shape {shape}.")
    if 0 in shape:
        raise UserError(f"{name}: {images} are empty, shape {shape}.")
    if data.layout == "auto" and looks_channels_first(shape):
        raise UserError(
            f"{name}: {images} of shape {list(shape)} look like [N, C, H, W]; give --data.layout "
            "NCHW, or NHWC if they are [N, H, W, C]."
        )
    rank4 = channels_last_shape(shape, data.layout)
    check_fixed_size(rank4, data)
    if labels not in headers:
        return rank4
    label_shape, label_dtype = headers[labels]
    if label_dtype.kind not in "iuU":
        raise UserError(f"{name}: {labels} must be integers or strings, got {label_dtype}.")
    if label_shape not in ((shape[0],), (shape[0], 1)):
        raise UserError(
            f"{name}: {labels} must be one per image, [{shape[0]}], got shape {label_shape}; "
            "--data.labels none leaves them out."
        )
    return rank4


def _check_unpacked(
    name: str, headers: dict[str, Header], members: Sequence[str], data: Data
) -> None:
    """Raises UserError if arrays unpack to more than data.memory_limit."""
    for member in members:
        shape, dtype = headers[member]
        size = math.prod(shape) * dtype.itemsize / 2**30
        if size > data.memory_limit:
            raise UserError(
                f"{name}: {member}, {dtype} {list(shape)}, unpack to {size:.3g} GiB; "
                f"data.memory_limit is {data.memory_limit:g} GiB. Store them as a smaller type, or "
                "set --data.memory-limit if this machine has that much memory free."
            )
