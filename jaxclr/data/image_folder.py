"""Image files, in one folder per class or in a single folder without labels."""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxclr.data import buckets
from jaxclr.data.dataset import TEST_NAMES, TRAIN_NAMES, Dataset, abbreviate
from jaxclr.data.encoded_splits import Part, load_parts
from jaxclr.data.identity import fingerprints
from jaxclr.data.listing import Entries, InBucket, Lister, entries
from jaxclr.data.paths import check_is
from jaxclr.data.pixels import Encoded, Unreadable, open_image
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError
from jaxclr.paths import expanded, in_bucket
from jaxclr.text import displayable

TOGETHER = 128  # files of a bucket that are read at a time


class Files(NamedTuple):
    """Image files.

    Attributes:
      paths: of the files.
      labels: class index of each file, int32 [N]; None without classes.
      left_out: what is neither an image of a class nor a folder, with the reason.
      runs: folders of runs, which are ignored.
    """

    paths: list[str]
    labels: np.ndarray | None
    left_out: tuple[Unreadable, ...] = ()
    runs: tuple[str, ...] = ()


def load(argument: str, data: Data) -> Dataset:
    """Reads PATH/train and PATH/test (or val, ...), or splits the files of PATH by test_fraction.

    Each holds either one folder per class, or only images, which are then unlabeled. Hidden files
    and folders are ignored. Links are followed.
    """
    path = os.fspath(expanded(argument))
    check_is(path, "a folder")
    in_cloud = InBucket() if in_bucket(path) else None
    lister = in_cloud.entries if in_cloud else entries
    train_folder, test_folder, notes = _split_folders(path, data, lister)
    train, classes = _list(train_folder, data, lister)
    test = None
    if test_folder is not None:
        test, test_classes = _list(test_folder, data, lister)
        test = _relabel((train_folder, test_folder), test, test_classes, classes)
    left_out = train.left_out + (test.left_out if test else ())
    if runs := sorted({*_listed(path, lister).runs, *train.runs, *(test.runs if test else ())}):
        notes += (f"Folders of runs are left out of '{displayable(path)}': {_shown(runs)}.",)
    part = lambda files: Part(_Paths(path, files), np.arange(len(files.paths)), files.labels)
    dataset = load_parts(
        displayable(os.path.basename(os.path.realpath(path))),
        (part(train), test and part(test)),
        tuple(map(displayable, classes)),
        data,
        notes=notes,
        left_out=left_out,
    )
    if in_cloud is None:
        return dataset
    known, root = in_cloud.marks(), os.path.join(path, "")
    every = train.paths + (test.paths if test else [])
    marks = fingerprints({file.removeprefix(root): known[file] for file in every})
    return dataset._replace(files=marks)


class _Paths:
    """The files in a folder, stored compactly: about 50 bytes for each."""

    def __init__(self, folder: str, files: Files):
        self._folder = folder
        above = os.path.join(folder, "")
        self._names = np.array([os.fsencode(path.removeprefix(above)) for path in files.paths])
        self._labels = files.labels

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        labels = [-1] * len(rows) if self._labels is None else self._labels[list(rows)].tolist()
        paths = [os.path.join(self._folder, os.fsdecode(self._names[row])) for row in rows]
        return list(zip(_together(paths), labels, strict=True))


def _split_folders(
    path: str, data: Data, lister: Lister
) -> tuple[str, str | None, tuple[str, ...]]:
    """The folders of train and test, and notes; `path` and None if it holds images or classes.

    Without a test folder beside it, a folder "train" among others is a class.

    Raises:
      UserError: a folder that is asked for does not exist, or folders look like splits but are not
        a pair of train and test.
    """
    found = _listed(path, lister)
    folders = {os.path.basename(folder): folder for folder in found.folders}
    named = lambda *names: [folders[f] for name in names for f in folders if f.lower() == name]
    trains, tests = named(*TRAIN_NAMES), named(*TEST_NAMES)
    if data.train_split is not None:
        trains = [_sub_folder(path, data.train_split)]
    if data.test_split is not None:
        tests = [_sub_folder(path, data.test_split)]
        if not trains:
            raise UserError(
                f"data.test_split is '{displayable(data.test_split)}', but '{displayable(path)}' "
                "has no folder train; set --data.train-split too."
            )
    if len(trains) == 1 and (tests or len(folders) == 1 or data.train_split is not None):
        test = tests[0] if tests else None
        used = {trains[0], test}
        beside = found.files + [folder for folder in found.folders if folder not in used]
        note = f"Training on '{displayable(trains[0])}'"
        if test is not None:
            note += f", testing on '{displayable(test)}'"
        note += f"; not read is what lies beside: {_shown(beside)}" * bool(beside)
        return trains[0], test, (f"{note}.",)
    nested = [folder for folder in trains if _listed(folder, lister).folders]
    if tests or nested or len(trains) > 1:
        looks = _shown(trains + tests)
        raise UserError(
            f"'{displayable(path)}' has folders that look like splits ({looks}), but not one for "
            "training and one for testing. Name the folders with --data.train-split and "
            "--data.test-split, or rename them if they are classes."
        )
    return path, None, ()


def _sub_folder(path: str, name: str) -> str:
    folder = os.path.join(path, name)
    check_is(folder, "a folder")
    return folder


def _list(path: str, data: Data, lister: Lister) -> tuple[Files, tuple[str, ...]]:
    """The files of one split in sorted order, and its class names, as the file system has them."""
    folders, loose, odd, runs = _listed(path, lister)
    name = displayable(path)
    if not folders + loose + odd:
        raise UserError(f"Folder '{name}' is empty; put images or one folder per class into it.")
    if not folders:
        return Files(loose, None, tuple(odd), tuple(runs)), ()
    if images := [file for file in loose if _is_image(file)]:
        raise UserError(
            f"'{name}' holds both images ('{_shown(images[:1])}') and folders "
            f"('{_shown(folders[:1])}'). Put every image into the folder of its class, or all "
            "images into one folder."
        )
    odd += [Unreadable(file, "cannot be read as an image") for file in loose]
    paths, labels, classes = [], [], []
    for folder in folders:
        inside, odd_inside, runs_inside = _files(folder, os.path.realpath(path), lister)
        odd += odd_inside
        runs += runs_inside
        if not inside and not odd_inside:
            raise UserError(
                f"Class folder '{displayable(folder)}' has no files. Add images or remove it."
            )
        if inside:
            paths += inside
            labels += [len(classes)] * len(inside)
            classes.append(os.path.basename(folder))
    if data.labels == "none":
        return Files(paths, None, tuple(odd), tuple(runs)), ()
    indices = np.asarray(labels, np.int32)
    return Files(paths, indices, tuple(odd), tuple(runs)), tuple(classes)


def _check_no_splits(folder: str, inside: Sequence[str]) -> None:
    """Raises UserError if a class folder holds a train and a test folder, which would be merged."""
    names = {os.path.basename(sub).lower() for sub in inside}
    if names & set(TRAIN_NAMES) and names & set(TEST_NAMES):
        raise UserError(
            f"Class folder '{displayable(folder)}' holds folders that look like splits "
            f"({_shown(inside)}). Give the path of that folder, or put folders of classes into a "
            "folder for each split."
        )


def _relabel(
    parts: tuple[str, str],
    test: Files,
    test_classes: tuple[str, ...],
    classes: tuple[str, ...],
) -> Files:
    """The test files with the class indices of train."""
    if bool(classes) != bool(test_classes):
        has, lacks = map(displayable, parts if classes else parts[::-1])
        raise UserError(
            f"'{has}' has a folder per class and '{lacks}' has none. "
            "Sort both into class folders, or neither, or set --data.labels none."
        )
    if not classes:
        return test
    if strange := [name for name in test_classes if name not in classes]:
        raise UserError(
            f"Class '{displayable(strange[0])}' is in '{displayable(parts[1])}' but not in "
            f"'{displayable(parts[0])}', which has {abbreviate(classes)}. Rename or remove it, or "
            "add it to both."
        )
    numbers = np.asarray([classes.index(name) for name in test_classes], np.int32)
    return test._replace(labels=None if test.labels is None else numbers[test.labels])


def _encoded(path: str) -> Encoded:
    return _together([path])[0]


def _together(paths: Sequence[str]) -> list[Encoded]:
    """Files to be opened; of a bucket, some are read together when the first of them is."""
    if not paths or not in_bucket(paths[0]):
        return [Encoded(path, functools.partial(open, path, "rb")) for path in paths]
    files: list[Encoded] = []
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        batch = buckets.Batch(some)
        files += [
            Encoded(path, functools.partial(batch.open, row)) for row, path in enumerate(some)
        ]
    return files


def _is_image(path: str) -> bool:
    try:
        with open_image(_encoded(path)):
            return True
    except Unreadable:
        return False


def _files(
    folder: str, above: str, lister: Lister
) -> tuple[list[str], list[Unreadable], list[str]]:
    """All files in a folder and its subfolders, in order of names, what is left out, and runs.

    Args:
      folder: the folder.
      above: the real path of the folder that holds it, for links that lead back.
      lister: what lists a folder.
    """
    files: list[str] = []
    odd: list[Unreadable] = []
    runs: list[str] = []
    pending: list[tuple[str, tuple[str, ...]]] = [(folder, (above,))]  # () for a file; last first
    while pending:
        path, chain = pending.pop()
        if not chain:
            files.append(path)
            continue
        real = os.path.join(os.path.realpath(path), "")
        if any(os.path.join(outer, "").startswith(real) for outer in chain):
            odd.append(Unreadable(path, "is a link to a folder that contains it"))
            continue
        try:
            inside = lister(path)
        except Unreadable as error:
            odd.append(error)
            continue
        odd += inside.odd
        runs += inside.runs
        if not inside.folders:
            files += inside.files
            continue
        if path == folder:
            _check_no_splits(folder, inside.folders)
        chains = dict.fromkeys(inside.files, ()) | dict.fromkeys(inside.folders, (*chain, real))
        pending += sorted(chains.items(), reverse=True)
    return files, odd, runs


def _listed(path: str, lister: Lister) -> Entries:
    """The entries of the data set's own folder, which must be readable."""
    try:
        return lister(path)
    except Unreadable as error:
        raise UserError(f"Folder {error}. {error.remedy}.") from error


def _shown(names: Iterable[str]) -> str:
    """A few names of files or folders, without the path."""
    return abbreviate([os.path.basename(name) for name in names])
