"""Tar shards as webdataset writes them, read at random through an index."""

import functools
import os
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxclr.data.dataset import TEST_NAMES, TRAIN_NAMES, Dataset, abbreviate
from jaxclr.data.encoded_splits import Part, label_indices, load_parts
from jaxclr.data.index_cache import indexes
from jaxclr.data.pixels import Encoded, Unreadable
from jaxclr.data.source_options import Data, fixed_part
from jaxclr.data.spans import Batch, Span
from jaxclr.data.tar_index import tar_index
from jaxclr.errors import UserError, reason
from jaxclr.paths import expanded
from jaxclr.text import displayable

TOGETHER = 64  # images read at a time
_WILD = re.compile(r"[*?\[]")


def load(argument: str, data: Data) -> Dataset:
    """Reads tar shards: a pattern such as train-{000..012}.tar or *.tar, or a folder of shards.

    Shards whose names or folders have train, test, val, ... as a word are those splits.
    """
    base, train, tests, beside = _splits(argument, data)
    samples = [_Samples(shards, base, data) for shards in (train, *tests)]
    labeled = any(each.any_label for each in samples)
    test = next((each for each in samples[1:] if each.any_label or not labeled), None)
    used = samples[:1] if test is None else [samples[0], test]
    missing = tuple(error for each in used for error in each.without_image)
    *indices, classes = label_indices(
        f"'wds:{displayable(argument)}'", used[0].labels, None if test is None else test.labels
    )
    for each, labels in zip(used, indices, strict=False):
        each.indices = labels
    note = f"Training on {', testing on '.join(each.name for each in used)}"
    note += f"; not read: {_shown(list(map(str, beside)), base)}" * bool(beside)
    notes = (f"{note}.",)
    if data.labels != "none" and not classes:
        notes += (_without_labels(used, argument, data),)
    parts = [Part(each, each.rows, _at(each.indices, each.rows)) for each in used]
    name = displayable(os.path.basename(str(base)))
    splits = parts[0], (*parts, None)[1]
    version = _version(used)
    return load_parts(name, splits, classes, data, notes=notes, left_out=missing, version=version)


class _Samples:
    """The samples of some shards, in order; stored compactly: about 50 bytes for each."""

    def __init__(self, shards: Sequence[Any], base: Any, data: Data):
        self.shards = [str(shard) for shard in shards]
        make = lambda path, _: tar_index(path, data.labels)
        try:
            by_path = indexes(self.shards, make, name="tar", kind=data.labels)
        except OSError as error:
            raise UserError(
                f"'{displayable(str(error.filename))}' cannot be read ({reason(error)})."
            ) from error
        found = [by_path[shard] for shard in self.shards]
        together = lambda key: np.concatenate([one[key] for one in found])
        self.name = _shown(self.shards, base)
        self._shard = np.repeat(
            np.arange(len(shards), dtype=np.int32), [len(one["names"]) for one in found]
        )
        self._names, self._sizes = together("names"), together("sizes")
        self._offsets = together("offsets")
        self.extensions = sorted({os.fsdecode(one) for one in together("extensions")})
        self.labels = _values(together("labels"), together("labeled"))
        self.indices: np.ndarray | None = None

    def checksum(self, before: int) -> int:
        """A checksum of names and places, which continues another one."""
        for array in (self._names, self._offsets, self._sizes):
            before = zlib.crc32(array.tobytes(), before)
        return before

    @property
    def rows(self) -> np.ndarray:
        """Those with an image."""
        return np.flatnonzero(self._offsets >= 0)

    @property
    def any_label(self) -> bool:
        return any(label not in (None, -1) for label in self.labels)

    @property
    def without_image(self) -> list[Unreadable]:
        rows = np.flatnonzero(self._offsets < 0).tolist()
        return [Unreadable(self._name(row), "has no image") for row in rows]

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        labels = [-1] * len(rows) if self.indices is None else self.indices[list(rows)].tolist()
        files: list[Encoded] = []
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            batch = Batch(list(map(self._span, some)))
            files += [
                Encoded(self._name(row), functools.partial(batch.open, index))
                for index, row in enumerate(some)
            ]
        return list(zip(files, labels, strict=True))

    def _span(self, row: int) -> Span:
        start = int(self._offsets[row])
        return Span(self.shards[self._shard[row]], start, start + int(self._sizes[row]))

    def _name(self, row: int) -> str:
        return f"{self.shards[self._shard[row]]} {os.fsdecode(self._names[row])}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "labels": None}  # workers need the indices only


def _values(labels: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """The labels as objects [N]: integers if all are, otherwise names; None without a label."""
    values = np.full(len(labels), None, object)
    try:
        values[labeled] = labels[labeled].astype(np.int64).tolist()
    except ValueError:
        values[labeled] = [os.fsdecode(label) for label in labels[labeled].tolist()]
    return values


def _at(indices: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if indices is None else indices[rows]


def _without_labels(used: Sequence[_Samples], argument: str, data: Data) -> str:
    """A note that labels are missing; an error if a name of labels was given."""
    extensions = abbreviate(sorted({name for each in used for name in each.extensions}))
    if data.labels == "auto":
        return f"No labels are read: members are {extensions}; labels are in cls or json."
    raise UserError(
        f"'wds:{displayable(argument)}' has no label '{displayable(data.labels)}': it is neither "
        f"an extension of members ({extensions}) nor a key of their json. Set --data.labels."
    )


def _version(used: Sequence[_Samples]) -> str:
    """A checksum of names and places of all images."""
    crc = 0
    for each in used:
        crc = each.checksum(crc)
    return f"{sum(len(each.rows) for each in used)} samples {crc:08x}"


def _splits(argument: str, data: Data) -> tuple[Any, list[Any], list[list[Any]], list[Any]]:
    """The folder, the shards of train, of each split that may be for testing, and the others."""
    base, shards = _base(argument), _shards(argument)
    groups: dict[str, list[Any]] = {}
    for shard in shards:
        groups.setdefault(_split_of(str(shard).removeprefix(str(base))), []).append(shard)
    named = lambda names: [groups[name] for name in names if name in groups]
    asked = lambda split: groups.get(split) or _shards(os.path.join(str(base), split))
    trains, tests = named(TRAIN_NAMES), named(TEST_NAMES)
    if data.test_split is not None:
        tests = [asked(data.test_split)]
    if data.train_split is not None:
        train = asked(data.train_split)
    elif trains:
        train = trains[0]
    elif len(groups) == 1 or data.test_split is not None:
        train = [shard for shard in shards if data.test_split is None or shard not in tests[0]]
        tests = tests if data.test_split is not None else []
    else:
        raise UserError(
            f"'{displayable(argument)}' has shards that look like splits "
            f"({abbreviate([str(some[0].name) for some in tests])}), but none for training. Choose "
            "shards with --data.train-split and --data.test-split."
        )
    if not train:
        raise UserError(f"'{displayable(argument)}' has no shards beside those of test.")
    read = {str(shard) for some in (train, *tests) for shard in some}
    return base, train, tests, [shard for shard in shards if str(shard) not in read]


def _split_of(path: str) -> str:
    """The first word in a shard's path that names a split; "" without any."""
    words = re.split(r"[^a-z]+", path.lower())
    return next((word for word in words if word in TRAIN_NAMES + TEST_NAMES), "")


def _base(pattern: str) -> Any:
    """The innermost folder that holds all files of a pattern."""
    path = expanded(fixed_part(pattern) or ".")
    return path if path.is_dir() else path.parent


def _shards(pattern: str) -> list[Any]:
    """The shards of a pattern, in the order of braces and names.

    Raises:
      UserError: a file does not exist, or no file matches.
    """
    path = expanded(pattern)
    if path.is_dir():
        found = sorted(path.glob("*.tar")) or sorted(path.glob("*/*.tar"))
        if not found:
            raise UserError(
                f"'{displayable(pattern)}' has no tar files (NAME.tar); give a folder of shards "
                "that are not compressed, or a pattern such as train-{000..012}.tar."
            )
        return found
    if path.is_file():
        return [path]
    found = []
    for one in _expand_braces(pattern):
        if _WILD.search(one):
            base = _base(one)
            inside = str(expanded(one)).removeprefix(str(base)).lstrip("/")
            found += sorted(base.glob(inside))
        elif expanded(one).is_file():
            found.append(expanded(one))
        else:
            raise UserError(f"'{displayable(one)}' does not exist; give the tar files there are.")
    if not found:
        raise UserError(f"No file matches '{displayable(pattern)}'; give a pattern of tar files.")
    return found


def _expand_braces(pattern: str) -> list[str]:
    """The names that {000..012} and {a,b} stand for, as in a shell."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", braces[1])
    if span:
        first, last = span.groups()
        choices = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    else:
        choices = braces[1].split(",")
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [name for choice in choices for name in _expand_braces(before + choice + after)]


def _shown(shards: Sequence[str], base: Any) -> str:
    """A few shards in a sentence."""
    names = [shard.removeprefix(str(base)).lstrip("/") for shard in shards]
    return f"{len(names)} shard(s) ({abbreviate(names, 3)})"
