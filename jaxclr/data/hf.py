"""Data sets of Hugging Face on disk, read by its library `datasets`. Nothing is downloaded."""

import contextlib
import functools
import io
import logging
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np

from jaxclr.data.dataset import TEST_NAMES, TRAIN_NAMES, Dataset, abbreviate
from jaxclr.data.encoded_splits import Part, label_indices, load_parts
from jaxclr.data.pixels import Encoded
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError, optional, reason
from jaxclr.paths import expanded, in_bucket
from jaxclr.text import displayable

LABELS = ("label", "labels", "class", "cls")  # names of columns that are labels without names
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def load(argument: str, data: Data) -> Dataset:
    """Reads a data set that is on disk: a folder of save_to_disk or of Parquet, or NAME[:CONFIG].

    A folder that save_to_disk did not write, and a name in the cache of Hugging Face, are opened by
    `datasets.load_dataset`, which converts Parquet to Arrow once, in its cache.
    """
    splits = _opened(argument)
    features = next(iter(splits.values())).features
    image_key, label_key = _image_key(argument, features), _label_key(argument, features, data)
    train_name = data.train_split or _train_split(argument, splits)
    open_split = lambda split: _Rows(argument, splits, split, image_key, label_key)
    train, test = open_split(train_name), None
    if data.test_split is not None:
        test = open_split(data.test_split)
    else:
        names = (split for name in TEST_NAMES for split in splits if split.lower() == name)
        others = (open_split(split) for split in names if split != train_name and splits[split])
        # A test split whose labels are withheld has only labels of -1.
        test = next((rows for rows in others if label_key is None or rows.labeled), None)
    notes = (f"Training on {train.split}{f', testing on {test.split}' if test else ''}.",)
    if label_key is None and data.labels == "auto" and len(features) > 1:
        shown = abbreviate(sorted(set(features) - {image_key}))
        notes += (f"No labels are read: no column among {shown} is one class for each image.",)
    names = getattr(features[label_key], "names", None) if label_key is not None else ()
    *indices, classes = label_indices(
        f"'hf:{displayable(argument)}'", train.labels, None if test is None else test.labels, names
    )
    parts = [
        Part(rows.with_indices(found), np.arange(len(rows)), found)
        for rows, found in zip([train, test], indices, strict=True)
        if rows is not None
    ]
    name = displayable(os.path.basename(os.path.normpath(argument)))
    version = _version(splits)
    return load_parts(
        name, (parts[0], (*parts, None)[1]), classes, data, notes=notes, version=version
    )


class _Rows:
    """The encoded images of one split. It is pickled by the names of its files."""

    def __init__(
        self, argument: str, splits: Mapping[str, Any], split: str, image: str, label: str | None
    ):
        self.split = split
        self._name = f"{argument} {split}"
        self._image, self._label = image, label
        self._folder = argument if os.path.isdir(os.path.expanduser(argument)) else ""
        self._dataset = _selected(argument, splits, split)
        self._indices: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._dataset)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Label of each row, objects [N]: int or str, None without a label."""
        labels = np.full(len(self), None, object)
        if self._label is not None:
            labels[:] = self._dataset.data.column(self._label).to_pylist()
        return labels

    @property
    def labeled(self) -> bool:
        """Whether any row has a label."""
        return any(label not in (None, -1) for label in self.labels)

    def with_indices(self, indices: np.ndarray | None) -> "_Rows":
        """The rows with the class index of each, int32 [N], instead of its label."""
        self._indices = indices
        self.__dict__.pop("labels", None)
        return self

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """Encoded image and class index of each row; an image is read when it is opened."""
        labels = [-1] * len(rows) if self._indices is None else self._indices[list(rows)].tolist()
        column = self._dataset.data.column(self._image)
        open_row = lambda row: functools.partial(_open, column, row, self._folder)
        return [
            (Encoded(f"{self._name} row {row}", open_row(row)), label)
            for row, label in zip(rows, labels, strict=True)
        ]


def _open(column: Any, row: int, folder: str) -> IO[bytes]:
    """The image of a row: its bytes, or the file of its path."""
    try:
        stored = column[row].as_py()
    except ValueError as error:  # pyarrow.ArrowInvalid
        raise OSError(reason(error)) from error
    stored = stored if isinstance(stored, Mapping) else {"bytes": stored}
    if stored.get("bytes") is not None:
        return io.BytesIO(stored["bytes"])
    if stored.get("path"):
        return expanded(os.path.join(folder, stored["path"])).open("rb")
    raise OSError("the row is empty")


def _opened(argument: str) -> dict[str, Any]:
    """All splits of a data set on disk.

    Raises:
      UserError: it is not there, or is damaged.
    """
    datasets = optional("datasets")
    if in_bucket(argument):
        raise UserError(
            f"'hf:{displayable(argument)}' is in a bucket; data sets of Hugging Face are read from "
            "local folders. Copy it, or give tar shards in the bucket (wds:)."
        )
    path = os.path.expanduser(argument)
    with _offline(datasets):
        try:
            if os.path.isdir(path):
                saved = ("dataset_dict.json", "state.json")
                if any(os.path.exists(os.path.join(path, name)) for name in saved):
                    found = datasets.load_from_disk(path)
                else:
                    found = datasets.load_dataset(path)
            else:
                found = _cached(datasets, *argument.partition(":")[::2])
        except UserError:
            raise
        except Exception as error:  # of many kinds, by the format
            raise UserError(
                f"'hf:{displayable(argument)}' cannot be opened as a data set ({reason(error)})."
            ) from error
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def _cached(datasets: Any, name: str, config: str) -> Any:
    """A data set in the cache of Hugging Face, by its name on the Hub."""
    hub = optional("huggingface_hub")
    try:
        return datasets.load_dataset(name, config or None)
    except (ConnectionError, FileNotFoundError) as error:
        with contextlib.suppress(Exception):  # many kinds, also of names that cannot be
            folder = hub.snapshot_download(name, repo_type="dataset", local_files_only=True)
            return datasets.load_dataset(folder, config or None)
        of = f"{name!r}, {config!r}" if config else repr(name)
        raise UserError(
            f"'{displayable(name)}' is neither a folder nor a data set in the cache of Hugging "
            f"Face ({datasets.config.HF_CACHE_HOME}), and nothing is downloaded. Download it with: "
            f'python -c "import datasets; datasets.load_dataset({of})"'
        ) from error


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """No requests to the Hub, and no words of the library on it; progress for people only."""
    settings: tuple[Any, ...] = (datasets.config, optional("huggingface_hub.constants"))
    before = [module.HF_HUB_OFFLINE for module in settings]
    logger = datasets.utils.logging
    level, bars = logger.get_verbosity(), not datasets.are_progress_bars_disabled()
    try:
        for module in settings:
            module.HF_HUB_OFFLINE = True
        logger.set_verbosity(logging.ERROR)
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        yield
    finally:
        for module, value in zip(settings, before, strict=True):
            module.HF_HUB_OFFLINE = value
        logger.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()


def _train_split(argument: str, splits: Mapping[str, Any]) -> str:
    found = [split for name in TRAIN_NAMES for split in splits if split.lower() == name]
    if found or len(splits) == 1:
        return (found or list(splits))[0]
    raise _no_split(argument, splits, "train")


def _selected(argument: str, splits: Mapping[str, Any], split: str) -> Any:
    """The rows of a split in the syntax of Hugging Face, such as "train+validation[:10%]"."""
    datasets = optional("datasets")
    if split in splits and len(splits[split]):
        return splits[split]
    sizes = {name: len(rows) for name, rows in splits.items()}
    try:
        parts = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    except Exception as error:  # several kinds, for names, slices and syntax
        raise _no_split(argument, splits, split) from error
    parts = [
        splits[one.splitname].select(range(one.from_, one.to))
        for one in parts
        if one.from_ < one.to
    ]
    if not parts:
        raise _no_split(argument, splits, split)
    return datasets.concatenate_datasets(parts)


def _no_split(argument: str, splits: Mapping[str, Any], split: str) -> UserError:
    return UserError(
        f"'hf:{displayable(argument)}' has no split '{displayable(split)}'; it has "
        f"{abbreviate(list(splits))}. Choose splits with --data.train-split and --data.test-split."
    )


def _image_key(argument: str, features: Mapping[str, Any]) -> str:
    """The first column of images; without the library's own type, the first of bytes."""
    datasets = optional("datasets")

    def holds_bytes(feature: Any) -> bool:
        if isinstance(feature, Mapping):
            return "bytes" in feature and holds_bytes(feature["bytes"])
        return getattr(feature, "dtype", "") in ("binary", "large_binary")

    own = [key for key, feature in features.items() if isinstance(feature, datasets.Image)]
    raw = [key for key, feature in features.items() if holds_bytes(feature)]
    if own or raw:
        return (own or raw)[0]
    raise UserError(
        f"'hf:{displayable(argument)}' has no column of images; its columns are "
        f"{abbreviate(list(features))}."
    )


def _label_key(argument: str, features: Mapping[str, Any], data: Data) -> str | None:
    """The column of the label: the one that is asked for, the first ClassLabel, or by its name."""
    if data.labels == "none":
        return None
    datasets = optional("datasets")
    kinds = ("bool", "string", "large_string", *INTEGERS)
    named = [key for key, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    plain = [
        key
        for key, feature in features.items()
        if isinstance(feature, datasets.Value) and feature.dtype in kinds
    ]
    if data.labels == "auto":
        return next(iter(named + [key for key in LABELS if key in plain]), None)
    if data.labels in named + plain:
        return data.labels
    raise UserError(
        f"'hf:{displayable(argument)}' has no column '{displayable(data.labels)}' of one label for "
        f"each image; it has {abbreviate(named + plain) or 'none'}. Set --data.labels to one of "
        "them, or to none."
    )


def _version(splits: Mapping[str, Any]) -> str:
    """A checksum of the names and sizes of all files."""
    files = {file["filename"] for split in splits.values() for file in split.cache_files}
    sizes = sorted((os.path.basename(file), os.path.getsize(file)) for file in files)
    rows = {name: len(split) for name, split in splits.items()}
    return (
        f"{sum(rows.values())} rows {zlib.crc32(repr((sizes, sorted(rows.items()))).encode()):08x}"
    )
