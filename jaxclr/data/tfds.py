"""TensorFlow Datasets in array_record or TFRecord format, read without TensorFlow."""

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

from jaxclr.data import buckets, tfrecord
from jaxclr.data.dataset import (
    TEST_NAMES,
    TRAIN_NAMES,
    Dataset,
    Split,
    abbreviate,
    note_on_unlabeled,
    split_rows,
    why_streamed,
)
from jaxclr.data.images import decode_all, first_shape, notes_on
from jaxclr.data.pixels import Encoded, Unreadable
from jaxclr.data.source_options import Data
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError
from jaxclr.paths import Path, expanded, in_bucket
from jaxclr.text import displayable

RECORDS = 2048
SPREAD = 100  # records whose labels tell whether a split has any
Example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
ARRAY_RECORD, TFRECORD = "array_record", "tfrecord"  # the preferred format first
RAW = tensorflow_datasets.decode.DeserializeMethod.RAW_BYTES


def load(argument: str, data: Data) -> Dataset:
    """Reads the training split and the first labeled test split of a prepared data set.

    If it is not prepared and TensorFlow is installed, it is downloaded and prepared first.
    """
    builder, note = _prepared(argument, data)
    info = builder.info
    image_key, label_key = _image_key(argument, info), _label_key(argument, info, data)
    open_split = lambda split: _Records(builder, _checked_split(split, info), image_key, label_key)
    train = open_split(data.train_split or next(iter(_named(info, TRAIN_NAMES)), "train"))
    if data.test_split is not None:
        test = open_split(data.test_split)
    else:
        # A test split whose labels are withheld has only labels of -1.
        others = map(open_split, _named(info, TEST_NAMES))
        test = next((records for records in others if label_key is None or records.labeled), None)
    testing = f", testing on {test.name}" if test else ""
    notes = (f"Training on {train.name}{testing}.", *note)
    classes: tuple[str, ...] = ()
    if label_key is not None:
        classes = _classes(cast(Any, info.features)[label_key], train, test)
    elif data.labels == "auto" and len(info.features) > 1:
        shown = abbreviate(sorted(set(info.features) - {image_key}))
        notes += (f"No labels are read: no feature among {shown} is one class for each image.",)

    like = first_shape((train.read([row])[0][0] for row in range(len(train))), data)
    count = len(train) + (len(test) if test else 0)
    if (why := why_streamed(count, like[1], data)) is not None:
        splits = _streams(train, test, like[1][2], data, why)
        return Dataset(info.name, *splits, classes, (), notes, info.full_name)
    train_split, left_out, composed = _decode(train, data, like)
    test_split = None
    if test is not None:
        test_split, more, composed_test = _decode(test, data, like)
        left_out, composed = left_out + more, composed + composed_test
    if label_key is not None:
        for name, split in (("training", train_split), ("test", test_split)):
            if split is not None and split.labels is not None:
                notes += note_on_unlabeled(name, split.labels)
    if test is None:
        images, labels = train_split.examples, train_split.labels
        rows, test_rows = split_rows(len(images), labels, data.test_fraction)
        if test_rows is not None:
            test_split = _take(train_split, test_rows)
            train_split = _take(train_split, rows)
    notes += notes_on(left_out, composed, data)
    skipped = tuple(error.name for error in left_out)
    return Dataset(info.name, train_split, test_split, classes, skipped, notes, info.full_name)


class _Records:
    """The encoded images and labels of one split, by row."""

    def __init__(self, builder: Any, split: str, image_key: str, label_key: str | None):
        self.name = f"{builder.info.full_name} {split}"
        instructions = builder.info.splits[split].file_instructions
        if builder.info.file_format.value == ARRAY_RECORD:
            self.source = builder.as_data_source(split=split, deserialize_method=RAW)
        else:
            self.source = tfrecord.Records(instructions)
        self.paths = [str(one.filename) for one in instructions]
        self.ends = np.cumsum([one.take for one in instructions])  # rows up to the end of each file
        self.image_key, self.label_key = image_key, label_key
        self.values: np.ndarray | None = None  # those of integer labels without names, sorted

    def __len__(self) -> int:
        return len(self.source)

    @functools.cached_property
    def labeled(self) -> bool:
        """Whether any of some evenly spaced records has a label."""
        if self.label_key is None or not len(self):
            return False
        rows = np.unique(np.linspace(0, len(self) - 1, SPREAD).astype(int)).tolist()
        return any(label >= 0 for _, label in self.read(rows))

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """Encoded image and label of each row; the label is -1 for unlabeled images."""
        try:
            examples = [Example.FromString(record) for record in self.source.__getitems__(rows)]
        except UserError:
            raise
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
            pairs.append((file, self._index(label[0])))
        return pairs

    def chunks(self, labels: list[int]) -> Iterator[list[Encoded]]:
        """Yields all images in chunks, and appends their labels to `labels`."""
        for start in range(0, len(self), RECORDS):
            rows = list(range(start, min(start + RECORDS, len(self))))
            pairs = self.read(rows)
            labels += [label for _, label in pairs]
            yield [file for file, _ in pairs]

    def _index(self, label: int) -> int:
        if self.values is None or label < 0:
            return label
        return int(np.searchsorted(self.values, label))

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
    stream = lambda records, rows: Stream(records, rows, records.labeled, channels, data, why)
    return stream(train, rows), None if test_rows is None else stream(test or train, test_rows)


def _decode(
    records: _Records, data: Data, like: tuple
) -> tuple[Split, tuple[Unreadable, ...], int]:
    labels: list[int] = []
    images, rows, left_out, composed = decode_all(records.chunks(labels), len(records), data, like)
    known = None if records.label_key is None else np.asarray(labels, np.int32)[rows]
    return Split(images, known), left_out, composed


def _take(split: Split, rows: np.ndarray) -> Split:
    return Split(split.examples[rows], None if split.labels is None else split.labels[rows])


def _named(info: Any, names: Sequence[str]) -> list[str]:
    """The splits with one of these names, in any case, in the order of the names."""
    return [
        split
        for name in names
        for split in info.splits
        if split.lower() == name and info.splits[split].num_examples
    ]


def _checked_split(split: str, info: Any) -> str:
    """A split in TFDS's syntax, such as "train+unlabelled" or "train[:10%]"."""
    try:
        if info.splits[split].num_examples:
            return split
    except Exception:  # several kinds, for names, slices and syntax
        pass
    raise UserError(
        f"'{info.full_name}' has no split '{split}'; it has {abbreviate(list(info.splits))}. "
        "Choose splits with --data.train-split and --data.test-split."
    )


def _image_key(name: str, info: Any) -> str:
    """The feature of the image: the supervised key, or the first image."""
    images = [
        key
        for key, feature in info.features.items()
        if isinstance(feature, tensorflow_datasets.features.Image)
    ]
    if not images:
        raise UserError(
            f"'tfds:{name}' has no images; its features are {abbreviate(list(info.features))}."
        )
    image = next((key for key in info.supervised_keys or () if key in images), images[0])
    if np.dtype(info.features[image].np_dtype) != np.uint8:
        raise UserError(
            f"'tfds:{name}' has images of {info.features[image].np_dtype}; only uint8 is read."
        )
    return image


def _label_key(name: str, info: Any, data: Data) -> str | None:
    """The feature of the label: the one that is asked for, or the supervised key, or the first.

    It is a ClassLabel; or, if none is, an integer that is a supervised key or named label.
    """
    if data.labels == "none":
        return None
    named = [
        key
        for key, feature in info.features.items()
        if isinstance(feature, tensorflow_datasets.features.ClassLabel)
    ]
    integers = [key for key, feature in info.features.items() if _is_integer(feature)]
    if data.labels != "auto":
        if data.labels in integers:
            return data.labels
        raise UserError(
            f"'tfds:{name}' has no feature '{data.labels}' of one integer for each image; it has "
            f"{abbreviate(integers) or 'none'}. Set --data.labels to one of them, or to none."
        )
    supervised = info.supervised_keys or ()
    likely = [key for key in integers if key in supervised or key == "label"]
    return next((key for key in supervised if key in named), next(iter(named + likely), None))


def _is_integer(feature: Any) -> bool:
    """Whether a feature is one integer; a ClassLabel is, too."""
    if not isinstance(feature, tensorflow_datasets.features.Tensor):
        return False
    return feature.shape == () and np.issubdtype(cast(Any, feature.np_dtype), np.integer)


def _classes(feature: Any, train: _Records, test: _Records | None) -> tuple[str, ...]:
    """Names of the classes; of integers without names, the values, for which all are read."""
    if isinstance(feature, tensorflow_datasets.features.ClassLabel):
        return tuple(map(displayable, feature.names))
    labels: list[int] = []
    for records in (train, test):
        for _ in () if records is None else records.chunks(labels):
            pass
    values = np.unique([label for label in labels if label >= 0])
    for records in (train, test):
        if records is not None:
            records.values = values
    return tuple(map(str, values.tolist()))


def _prepared(name: str, data: Data) -> tuple[Any, tuple[str, ...]]:
    """The builder of a data set that is prepared, set to a format that is read, and notes."""
    folder = None if data.dir is None else expanded(data.dir)
    if folder is not None and in_bucket(folder):
        buckets.check_is(str(folder), "a folder")
    elif folder is not None and not folder.is_dir():
        raise UserError(
            f"There is no folder '{folder}'. Set --data.dir to the folder of the data sets."
        )
    builder = _find(name, folder)
    if not builder.info.splits:
        builder = _prepare(name, folder, builder)
    found = sorted(item.value for item in builder.info.available_file_formats())
    # The reader of array_record files reads local ones only.
    readable = (TFRECORD,) if in_bucket(builder.data_path) else (ARRAY_RECORD, TFRECORD)
    chosen = next((one for one in readable if one in found), None)
    if chosen is None:
        where = " in a bucket" if in_bucket(builder.data_path) else ""
        raise UserError(
            f"'{name}' in '{builder.data_path}' is prepared as "
            f"{', '.join(found) or 'an unknown format'}; {' or '.join(readable)} is needed{where}. "
            "Prepare it again in another folder, and set --data.dir to that folder: "
            f"{_command(name, pathlib.Path('FOLDER'), readable[0])}"
        )
    if builder.info.file_format.value != chosen:
        builder.info.set_file_format(chosen, override=True, override_if_initialized=True)
    if len(found) == 1:
        return builder, ()
    return builder, (f"Prepared as {' and '.join(found)}; {chosen} is read.",)


def _find(name: str, folder: "Path | None") -> Any:
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


def _from_directory(folder: Path) -> Any:
    try:
        return tensorflow_datasets.builder_from_directory(folder)
    except Exception as error:
        raise UserError(f"TFDS cannot open '{folder}': {_first_line(error)}.") from error


def _prepare(name: str, folder: "Path | None", builder: Any) -> Any:
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


def _command(name: str, folder: "Path | None", file_format: str = ARRAY_RECORD) -> str:
    where = f", data_dir={str(folder)!r}" if folder is not None else ""
    return (
        f'python -c "import tensorflow_datasets as tfds; '
        f'tfds.builder({name!r}{where}, file_format={file_format!r}).download_and_prepare()"'
    )


def _first_line(error: Exception) -> str:
    """The message of TFDS, without its leading arguments and trailing lists."""
    text = str(error).split('}": ', 1)[-1]
    return " ".join(text.split("\n\n")[0].split())[:300].rstrip(".") or type(error).__name__
