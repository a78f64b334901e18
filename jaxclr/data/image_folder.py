"""Image files, in one folder per class or in a single folder without labels."""

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxclr.data.dataset import Dataset, Split, abbreviate, split_rows, why_streamed
from jaxclr.data.images import Encoded, Unreadable, decode_all, first_shape, open_image
from jaxclr.data.source_options import Data
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError
from jaxclr.paths import expanded

TEST_NAMES = ("test", "val", "validation")


class Files(NamedTuple):
    """Image files.

    Attributes:
      paths: of the files.
      labels: class index of each file, int32 [N]; None without classes.
      loose: files outside the class folders.
    """

    paths: list[str]
    labels: np.ndarray | None
    loose: tuple[str, ...] = ()


def load(argument: str, data: Data) -> Dataset:
    """Reads PATH/train and PATH/test (or val), or splits the files of PATH by test_fraction.

    Each holds either one folder per class, or only images, which are then unlabeled. Hidden files
    and folders are ignored.
    """
    path = expanded(argument)
    if not path.is_dir():
        raise UserError(f"There is no folder '{path}'.")
    parts = _split_folders(path)
    train_folder, test_folder = parts or (path, None)
    train, classes = _list(train_folder, data)
    test = None
    if test_folder is not None:
        test, test_classes = _list(test_folder, data)
        test = _relabel((train_folder, test_folder), test, test_classes, classes)
    elif data.test_fraction:
        rows = split_rows(len(train.paths), train.labels, data.test_fraction)
        train, test = _take(train, rows)
    every = train.paths + (test.paths if test else [])
    like = first_shape(map(_encoded, every), data)
    name = path.resolve().name
    if (why := why_streamed(len(every), like[1], data)) is not None:
        stream = lambda files: _stream(files, str(path), like[1][2], data, why)
        skipped = train.loose + (test.loose if test else ())
        return Dataset(name, stream(train), test and stream(test), classes, skipped)
    train_split, skipped = _decode(train, data, like)
    skipped += train.loose
    test_split = None
    if test is not None:
        test_split, more = _decode(test, data, like)
        skipped += more + test.loose
    return Dataset(name, train_split, test_split, classes, skipped)


class _Paths:
    """The files in a folder, stored compactly: about 50 bytes for each."""

    def __init__(self, folder: str, files: Files):
        self._folder = folder
        above = os.path.join(folder, "")
        self._names = np.array([os.fsencode(path.removeprefix(above)) for path in files.paths])
        self._labels = files.labels

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        labels = [-1] * len(rows) if self._labels is None else self._labels[list(rows)].tolist()
        paths = (os.path.join(self._folder, os.fsdecode(self._names[row])) for row in rows)
        return [(_encoded(path), label) for path, label in zip(paths, labels, strict=True)]


def _stream(files: Files, folder: str, channels: int, data: Data, why: str) -> Stream:
    rows = np.arange(len(files.paths))
    return Stream(_Paths(folder, files), rows, files.labels is not None, channels, data, why)


def _split_folders(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None] | None:
    """The train and test folders; None if `path` itself holds the images or the classes.

    Without a test folder beside it, a folder "train" among others is a class.
    """
    names = [entry.name for entry in _entries(path) if entry.is_dir()]
    tests = [path / name for name in TEST_NAMES if name in names]
    if "train" not in names or (not tests and len(names) > 1):
        return None
    return path / "train", tests[0] if tests else None


def _list(path: pathlib.Path, data: Data) -> tuple[Files, tuple[str, ...]]:
    """The files of one split in sorted order, and its class names."""
    entries = _entries(path)
    folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry.path for entry in entries if not entry.is_dir()]
    if not entries:
        raise UserError(f"Folder '{path}' is empty; put images or one folder per class into it.")
    if not folders:
        return Files(loose, None), ()
    if images := [file for file in loose if _is_image(file)]:
        raise UserError(
            f"'{path}' holds both images ('{os.path.basename(images[0])}') and folders "
            f"('{folders[0].name}'). Put every image into the folder of its class, or all images "
            "into one folder."
        )
    if loose and not data.skip_corrupt:
        raise UserError(
            f"'{loose[0]}' cannot be read as an image. "
            "Remove it, or set --data.skip-corrupt to leave it out."
        )
    paths, labels = [], []
    for label, folder in enumerate(folders):
        inside = list(_files(folder.path))
        if not inside:
            raise UserError(f"Class folder '{folder.path}' has no files. Add images or remove it.")
        paths += inside
        labels += [label] * len(inside)
    classes = tuple(folder.name for folder in folders)
    return Files(paths, np.asarray(labels, np.int32), tuple(loose)), classes


def _relabel(
    parts: tuple[pathlib.Path, pathlib.Path],
    test: Files,
    test_classes: tuple[str, ...],
    classes: tuple[str, ...],
) -> Files:
    """The test files with the class indices of train."""
    if bool(classes) != bool(test_classes):
        has, lacks = parts if classes else parts[::-1]
        raise UserError(
            f"'{has}' has a folder per class and '{lacks}' has none. "
            "Sort both into class folders, or neither."
        )
    if not classes:
        return test
    if strange := [name for name in test_classes if name not in classes]:
        raise UserError(
            f"Class '{strange[0]}' is in '{parts[1]}' but not in '{parts[0]}', which has "
            f"{abbreviate(classes)}. Rename or remove it, or add it to both."
        )
    numbers = np.asarray([classes.index(name) for name in test_classes], np.int32)
    return test._replace(labels=None if test.labels is None else numbers[test.labels])


def _decode(
    files: Files, data: Data, like: tuple[str, tuple, int]
) -> tuple[Split, tuple[str, ...]]:
    chunks = [[_encoded(path) for path in files.paths]]
    images, rows, skipped = decode_all(chunks, len(files.paths), data, like)
    labels = None if files.labels is None else files.labels[rows]
    return Split(images, labels, [files.paths[row] for row in rows]), skipped


def _encoded(path: str) -> Encoded:
    return Encoded(path, functools.partial(str, path))


def _is_image(path: str) -> bool:
    try:
        open_image(_encoded(path)).close()
    except Unreadable:
        return False
    return True


def _take(files: Files, splits: tuple[np.ndarray, np.ndarray | None]) -> tuple[Files, Files | None]:
    """The files of the train and of the test rows; loose files stay with train."""

    def of_rows(rows: np.ndarray, loose: tuple[str, ...]) -> Files:
        labels = None if files.labels is None else files.labels[rows]
        return Files([files.paths[row] for row in rows], labels, loose)

    train, test = splits
    return of_rows(train, files.loose), None if test is None else of_rows(test, ())


def _entries(path: str | pathlib.Path) -> list[os.DirEntry]:
    """The entries of a folder by name, without hidden ones; none is opened."""
    with os.scandir(path) as entries:
        return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)


def _files(path: str) -> Iterator[str]:
    """All files in a folder and its subfolders."""
    for entry in _entries(path):
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif entry.is_file():
            yield entry.path
