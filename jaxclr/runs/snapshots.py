"""Readers of a run's snapshots, as `readers` reads its other files."""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxclr.errors import UserError, reason
from jaxclr.paths import Path
from jaxclr.runs import files
from jaxclr.runs.readers import read_bytes
from jaxclr.text import displayable

MOST_UNPACKED = 2**28  # bytes of the arrays in a file
MOST_ROWS = 1000  # of an array
MOST_CLASSES = 2**20
MOST_SNAPSHOTS = 12

Arrays = Mapping[str, np.ndarray]


class Snapshot(NamedTuple):
    """A snapshot's unit rows, float32: gallery [g, F], queries [q, F], rows and columns [p, D]."""

    gallery: np.ndarray
    queries: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


class Labels(NamedTuple):
    """Labels of gallery and queries, integers [n] (-1: none), and displayable names of classes."""

    gallery: np.ndarray
    queries: np.ndarray
    classes: tuple[str, ...] = ()


class Images(NamedTuple):
    """Thumbnails of gallery and queries, uint8 [n, h, w, C], and views of the first queries."""

    gallery: np.ndarray
    queries: np.ndarray
    views: tuple[np.ndarray, ...] = ()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, whose sizes are checked before they are read.

    Raises:
      UserError: it is not a snapshot, or its arrays would take more than `MOST_UNPACKED` bytes.
    """
    data = io.BytesIO(read_bytes(path))
    try:
        with zipfile.ZipFile(data) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            total = sum(_size(archive, name) for name in names)
            if total > MOST_UNPACKED:
                raise ValueError(f"its arrays take {total} bytes, more than {MOST_UNPACKED}")
            arrays = {}
            for name in names:
                with archive.open(name) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = array
            return arrays
    except Exception as error:  # zipfile, zlib and NumPy each raise their own
        raise UserError(f"{path} cannot be read: {reason(error)}.") from error


def snapshot_steps(folder: Path) -> list[int]:
    """Steps of the files in snapshots/, at most `MOST_SNAPSHOTS`, with the first and the last."""
    try:
        found = [name.removesuffix(".npz") for name in files.names(folder) if name.endswith(".npz")]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {reason(error)}.") from error
    steps = sorted(int(name) for name in found if name.isascii() and name.isdecimal())
    chosen = np.linspace(0, len(steps) - 1, min(MOST_SNAPSHOTS, len(steps))).astype(int)
    return [steps[index] for index in chosen]


def read_snapshot(path: Path, like: Snapshot | None = None) -> Snapshot:
    """The embeddings in snapshots/STEP.npz, of as many examples as another snapshot, if any.

    Raises:
      UserError: the file cannot be read, lacks an array, or has one of another shape or type or
        with numbers that are not finite.
    """
    arrays = read_arrays(path)
    found = {}
    for name in Snapshot._fields:
        array = _array(arrays, name, path, kind="f", rank=2)
        found[name] = array.astype(np.float32)
        if not np.isfinite(found[name]).all():
            raise UserError(f"{path}: {name} has numbers that are not finite.")
    snapshot = Snapshot(**found)
    if (
        snapshot.gallery.shape[1] != snapshot.queries.shape[1]
        or snapshot.rows.shape != snapshot.columns.shape
        or len(snapshot.rows) > len(snapshot.queries)
    ):
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in found.items())
        raise UserError(f"{path}: its arrays do not fit each other ({shapes}).")
    if like is not None:
        _check_count(path, snapshot, like)
    return snapshot


def read_labels(path: Path, like: Snapshot) -> Labels | None:
    """Labels in snapshots/labels.npz (images.npz of early runs) of the examples of a snapshot.

    Returns:
      The labels; None if the file has none.

    Raises:
      UserError: the file cannot be read, or they are not labels of these examples.
    """
    arrays = read_arrays(path)
    if not {"gallery_labels", "query_labels", "classes"} & arrays.keys():
        return None
    classes = _array(arrays, "classes", path, kind="U", rank=1, most=MOST_CLASSES, least=0)
    gallery, queries = (
        _array(arrays, f"{name}_labels", path, kind="iu", rank=1) for name in ("gallery", "query")
    )
    _check_count(path, Labels(gallery, queries), like)
    for labels in (gallery, queries):
        if labels.min() < -1 or labels.max() >= len(classes):
            raise UserError(
                f"{path} has labels from {labels.min()} to {labels.max()} for {len(classes)} "
                "classes."
            )
    names = tuple(displayable(str(name)) for name in classes)
    return Labels(gallery.astype(np.int64), queries.astype(np.int64), names)


def read_images(path: Path, like: Snapshot) -> Images:
    """Thumbnails and views in snapshots/images.npz for the examples of a snapshot.

    Raises:
      UserError: the file cannot be read, or they are not images of these examples.
    """
    arrays = read_arrays(path)
    image = lambda name: _array(arrays, name, path, kind="u1", rank=4)
    gallery, queries = image("gallery"), image("queries")
    names = sorted(
        (name for name in arrays if name[:5] == "view_" and name[5:].isdecimal()),
        key=lambda name: int(name[5:]),
    )
    views = tuple(map(image, names))
    _check_count(path, Images(gallery, queries), like)
    if len({array.shape[3] for array in (gallery, queries, *views)}) > 1:
        raise UserError(f"{path}: its images differ in their channels.")
    if len({len(view) for view in views}) > 1 or any(len(view) > len(queries) for view in views):
        raise UserError(f"{path}: its views are not of the same images.")
    return Images(gallery, queries, views)


def _check_count(path: Path, found: Snapshot | Labels | Images, like: Snapshot) -> None:
    """Raises UserError unless gallery and queries are as many as those of a snapshot."""
    counts = [[len(some.gallery), len(some.queries)] for some in (found, like)]
    if counts[0] != counts[1]:
        one, other = (" and ".join(map(str, count)) for count in counts)
        raise UserError(f"{path} is of {one} examples, a snapshot beside it of {other}.")


def _array(
    arrays: Arrays,
    name: str,
    path: Path,
    *,
    kind: str,
    rank: int,
    least: int = 1,
    most: int = MOST_ROWS,
) -> np.ndarray:
    """An array of a kind (NumPy's letters, or one type) and rank, with so many rows."""
    if name not in arrays:
        raise UserError(f"{path} lacks the array {name}.")
    array = arrays[name]
    right = array.dtype.kind in kind or array.dtype.str.lstrip("|<>=") == kind
    if not right or array.ndim != rank or 0 in array.shape[1:]:
        raise UserError(f"{path}: {name} is {array.dtype} {list(array.shape)}.")
    if not least <= len(array) <= most:
        raise UserError(f"{path}: {name} has {len(array)} rows; {least} to {most} are read.")
    return array


def _size(archive: zipfile.ZipFile, name: str) -> int:
    """Bytes of an array by its header."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if any(length < 0 for length in shape):
        raise ValueError(f"{name} has the shape {shape}")
    return math.prod(shape) * dtype.itemsize
