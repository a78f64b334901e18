"""TensorFlow Datasets in array_record format, read without TensorFlow."""

import difflib
import functools
import importlib.util
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import tensorflow_datasets
from tensorflow_datasets.core.registered import DatasetNotFoundError
from tensorflow_datasets.proto import tf_example_pb2

from jaxclr.data.dataset import Dataset, Split, abbreviate, split_rows, why_streamed
from jaxclr.data.images import Encoded, decode_all, first_shape
from jaxclr.data.source_options import Data
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError
from jaxclr.paths import expanded

TEST_NAMES = ("test", "validation")
RECORDS = 2048
Example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
RAW = tensorflow_datasets.decode.DeserializeMethod.RAW_BYTES


def load(argument: str, data: Data) -> Dataset:
    """Reads the splits 'train' and 'test' (or 'validation') of a prepared data set.

    If it is not prepared and TensorFlow is installed, it is downloaded and prepared first.
    """
    builder = _prepared(argument, data)
    info = builder.info
    image_key, label_key = _keys(argument, info)
    if "train" not in info.splits:
        raise UserError(
            f"'{data.source}' has no split 'train'; it has {abbreviate(list(info.splits))}."
        )
    train = _Records(builder, "train", image_key, label_key)
    test = None
    for name in TEST_NAMES:
        # A test split whose labels are withheld has only labels of -1.
        if name in info.splits and info.splits[name].num_examples:
            candidate = _Records(builder, name, image_key, label_key)
            if label_key is None or candidate.read([0])[0][1] >= 0:
                test = candidate
                break

    like = first_shape((train.read([row])[0][0] for row in range(len(train))), data)
    count = len(train) + (len(test) if test else 0)
    classes: tuple[str, ...] = ()
    if label_key is not None:
        classes = tuple(cast(Any, info.features)[label_key].names)
    if (why := why_streamed(count, like[1], data)) is not None:
        splits = _streams(train, test, like[1][2], data, why)
        return Dataset(info.name, *splits, classes, (), info.full_name)
    train_split, skipped = _decode(train, data, like)
    test_split = None
    if test is not None:
        test_split, more = _decode(test, data, like)
        skipped += more
    else:
        images, labels = train_split.examples, train_split.labels
        rows, test_rows = split_rows(len(images), labels, data.test_fraction)
        if test_rows is not None:
            test_split = _take(train_split, test_rows)
            train_split = _take(train_split, rows)
    return Dataset(info.name, train_split, test_split, classes, skipped, info.full_name)


class _Records:
    """The encoded images and labels of one split, by row."""

    def __init__(self, builder: Any, split: str, image_key: str, label_key: str | None):
        self.name = f"{builder.info.full_name} {split}"
        info = builder.info.splits[split]
        self.paths = [str(path) for path in info.filepaths]
        self.ends = np.cumsum(info.shard_lengths)  # rows up to the end of each file
        self.image_key, self.label_key = image_key, label_key
        self.source = builder.as_data_source(split=split, deserialize_method=RAW)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """Encoded image and label of each row; the label is -1 for unlabeled images."""
        try:
            examples = [Example.FromString(record) for record in self.source.__getitems__(rows)]
        except Exception as error:  # RuntimeError by the reader, DecodeError by the parser
            raise self._damaged(self._unreadable(rows), _first_line(error)) from error
        pairs = []
        for row, example in zip(rows, examples, strict=True):
            feature = example.features.feature
            image = feature[self.image_key].bytes_list.value
            label = feature[self.label_key].int64_list.value if self.label_key else [-1]
            # The reader returns empty records beyond the end of a truncated file.
            if len(image) != 1 or len(label) != 1:
                raise self._damaged(row, f"record {row} is empty")
            file = Encoded(f"{self.name} record {row}", functools.partial(io.BytesIO, image[0]))
            pairs.append((file, label[0]))
        return pairs

    def chunks(self, labels: list[int]) -> Iterator[list[Encoded]]:
        """Yields all images in chunks, and appends their labels to `labels`."""
        for start in range(0, len(self), RECORDS):
            rows = list(range(start, min(start + RECORDS, len(self))))
            pairs = self.read(rows)
            labels += [label for _, label in pairs]
            yield [file for file, _ in pairs]

    def _unreadable(self, rows: Sequence[int]) -> int:
        """The first row that cannot be read on its own; rows[0] if all can."""
        for row in rows:
            try:
                Example.FromString(self.source.__getitems__([row])[0])
            except Exception:  # as in `read`
                return row
        return rows[0]

    def _damaged(self, row: int, reason: str) -> UserError:
        path = self.paths[int(np.searchsorted(self.ends, row, side="right"))]
        return UserError(
            f"{self.name} cannot be read from {path}: {reason}. "
            "Delete the folder and prepare the data set again."
        )


def _streams(
    train: _Records, test: _Records | None, channels: int, data: Data, why: str
) -> tuple[Stream, Stream | None]:
    """The streamed splits; a missing test split is drawn from train.

    It is not stratified, because that would require reading all records.
    """
    rows, test_rows = np.arange(len(train)), None
    if test is not None:
        test_rows = np.arange(len(test))
    else:
        rows, test_rows = split_rows(len(train), None, data.test_fraction)
    labeled = train.label_key is not None
    stream = lambda records, rows: Stream(records, rows, labeled, channels, data, why)
    return stream(train, rows), None if test_rows is None else stream(test or train, test_rows)


def _decode(records: _Records, data: Data, like: tuple) -> tuple[Split, tuple[str, ...]]:
    labels: list[int] = []
    images, rows, skipped = decode_all(records.chunks(labels), len(records), data, like)
    if records.label_key is None:
        return Split(images, None), skipped
    return Split(images, np.asarray(labels, np.int32)[rows]), skipped


def _take(split: Split, rows: np.ndarray) -> Split:
    return Split(split.examples[rows], None if split.labels is None else split.labels[rows])


def _keys(name: str, info: Any) -> tuple[str, str | None]:
    """Features of image and label: the supervised keys, or the first of the right type."""
    kinds = {
        kind: [key for key, feature in info.features.items() if isinstance(feature, kind)]
        for kind in (
            tensorflow_datasets.features.Image,
            tensorflow_datasets.features.ClassLabel,
        )
    }
    images, labels = kinds.values()
    if not images:
        raise UserError(
            f"'tfds:{name}' has no images; its features are {abbreviate(list(info.features))}."
        )
    supervised = info.supervised_keys or ()
    image = next((key for key in supervised if key in images), images[0])
    label = next((key for key in supervised if key in labels), labels[0] if labels else None)
    if np.dtype(info.features[image].np_dtype) != np.uint8:
        raise UserError(
            f"'tfds:{name}' has images of {info.features[image].np_dtype}; only uint8 is read."
        )
    return image, label


def _prepared(name: str, data: Data) -> Any:
    """The builder of a data set that is on disk in array_record format."""
    folder = None if data.dir is None else expanded(data.dir)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"There is no folder '{folder}'. Set --data.dir to the folder of the data sets."
        )
    builder = _find(name, folder)
    if not builder.info.splits:
        builder = _prepare(name, folder, builder)
    formats = builder.info.available_file_formats()
    if "array_record" not in {item.value for item in formats}:
        found = ", ".join(sorted(item.value for item in formats)) or "an unknown format"
        raise UserError(
            f"'{name}' in '{builder.data_path}' is prepared as {found}; array_record is needed. "
            "Prepare it again in another folder, and set --data.dir to that folder: "
            f"{_command(name, pathlib.Path('FOLDER'))}"
        )
    return builder


def _find(name: str, folder: pathlib.Path | None) -> Any:
    """The builder from prepared files of any version; without files, by name."""
    if folder is not None and (folder / "dataset_info.json").is_file():
        return _from_directory(folder)
    # With a version pattern TFDS prefers the files to its own versions.
    pattern = name if ":" in name else f"{name}:*.*.*"
    try:
        return tensorflow_datasets.builder(pattern, data_dir=folder)
    except DatasetNotFoundError as error:
        valid = tensorflow_datasets.list_builders(with_community_datasets=False)
        bare = name.split(":")[0].split("/")[0]
        where = folder or "~/tensorflow_datasets"
        if bare in valid:
            raise UserError(f"'{name}' is not in '{where}': {_first_line(error)}.") from error
        near = difflib.get_close_matches(bare.lower(), valid, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UserError(
            f"There is no TFDS data set named '{bare}', and '{where}' has no prepared data set of "
            f"that name.{hint} Names: https://www.tensorflow.org/datasets/catalog."
        ) from error
    except Exception as error:  # builders raise many kinds: versions, configs, imports
        raise UserError(f"TFDS cannot open '{name}': {_first_line(error)}.") from error


def _from_directory(folder: pathlib.Path) -> Any:
    try:
        return tensorflow_datasets.builder_from_directory(folder)
    except Exception as error:
        raise UserError(f"TFDS cannot open '{folder}': {_first_line(error)}.") from error


def _prepare(name: str, folder: pathlib.Path | None, builder: Any) -> Any:
    """Downloads and prepares a data set; this needs TensorFlow."""
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"'{name}' is not prepared in '{builder.data_path}'. Run: "
            f"pip install 'jaxclr[prepare]' and then: {_command(name, folder)} "
            "(or set --data.dir to the folder where it is prepared)."
        )
    try:
        builder = tensorflow_datasets.builder(name, data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"'{name}' cannot be prepared in '{builder.data_path}': {_first_line(error)}."
        ) from error
    return builder


def _command(name: str, folder: pathlib.Path | None) -> str:
    where = f", data_dir={str(folder)!r}" if folder is not None else ""
    return (
        f'python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}{where}, file_format='array_record').download_and_prepare()\""
    )


def _first_line(error: Exception) -> str:
    """The message of TFDS, without its leading arguments and trailing lists."""
    text = str(error).split('}": ', 1)[-1]
    return " ".join(text.split("\n\n")[0].split())[:300].rstrip(".") or type(error).__name__
