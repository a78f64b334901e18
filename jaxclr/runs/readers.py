"""Readers of the files in a run's folder, which may be damaged or made by somebody else.

Each returns values of the types that it declares, or raises a UserError that names the file.
Nothing is unpickled, and sizes are checked before memory is allocated.
"""

import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cattrs

from jaxclr.data.identity import Identity
from jaxclr.errors import UserError, reason
from jaxclr.paths import Path, in_bucket
from jaxclr.runs import buckets
from jaxclr.text import displayable

LARGEST = 2**30  # bytes of a file
DEEPEST = 64  # levels of lists and objects in JSON
MOST_STEPS = 2**53

TEXTS = {"warning"}  # names in metrics.jsonl that are text
LISTS = {"spectrum", "positive_cosines", "negative_cosines"}  # and lists; all others are numbers


@dataclass(frozen=True)
class Figure:
    """A measured value: its mean and deviation, and the value of each draw."""

    mean: float
    std: float = math.nan
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class ProtocolRecord:
    """Figures of a protocol by name, and the step of the checkpoint."""

    step: int
    percent: bool
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Evaluation:
    """evaluation.json: figures by feature ("trained", "untrained", ...), and by protocol.

    `earlier` has those of the trained encoder at earlier steps.
    """

    step: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    features: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    protocols: Mapping[str, ProtocolRecord] = field(default_factory=dict)
    earlier: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)


@dataclass(frozen=True)
class BadStep:
    """bad_step.json: the step at which numbers were not finite."""

    step: int


@dataclass(frozen=True)
class InitRecord:
    """init.json: the weights that a run started from.

    Attributes:
      path: absolute, of a run or file.
      heads: whether heads were to be taken too.
      digest: of all variables that were read.
    """

    path: str
    heads: bool
    digest: str


@dataclass(frozen=True)
class Description:
    """What config.json says of a run, read without its code.

    Attributes:
      method: name of its class; likewise encoder.
      encoder: names of several are joined.
      data: the source, or the name of the class.
      epochs: as in `Config`; likewise batch_size, seed, steps and extensions.
      tree: all fields.
    """

    method: str
    encoder: str
    data: str
    epochs: int
    batch_size: int
    seed: int
    tree: Mapping[str, Any]
    steps: int | None = None
    extensions: tuple[tuple[int, int], ...] = ()


class Metrics(NamedTuple):
    """Lines of metrics.jsonl by step, and a sentence on what is left out; "" for nothing."""

    lines: list[dict[str, Any]]
    note: str = ""


def is_there(path: Path) -> bool:
    """Whether a path exists: a file, a folder, a link or a device.

    Raises:
      UserError: the file system does not tell, for instance for lack of a permission.
    """
    if in_bucket(path):
        return buckets.exists(path)
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {reason(error)}.") from error
    return True


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      UserError: it does not exist, is not a regular file (reading a pipe or device might block
        for ever), is too large, or cannot be read.
    """
    if in_bucket(path):
        return buckets.read(path, LARGEST)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not a regular file.")
        if found.st_size > LARGEST:
            raise UserError(f"{path} has {found.st_size} bytes; at most {LARGEST} are read.")
        with path.open("rb") as file:
            return file.read(LARGEST)
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {reason(error)}.") from error


def parse_json(data: bytes, path: Path) -> Any:
    """The tree in JSON text, UTF-8.

    Raises:
      UserError: it is not JSON in UTF-8, is nested too deeply, or has a string with a NUL or a
        surrogate.
    """
    try:
        tree = json.loads(data.decode())
        _check_tree(tree)
    except RecursionError as error:
        raise UserError(f"{path} is not JSON: it is nested too deeply.") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {reason(error)}.") from error
    return tree


def read_object(path: Path) -> dict[str, Any]:
    """The fields of a JSON file; raises UserError as `read_bytes` and `parse_json` do."""
    tree = parse_json(read_bytes(path), path)
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds {_kind(tree)}, not an object of fields.")
    return tree


def read_description(path: Path) -> Description:
    """What config.json says of a run."""
    tree = read_object(path)
    try:
        source = tree["data"].get("source") or name_of(tree["data"])
        return Description(
            method=name_of(tree["method"]),
            encoder=name_of(tree["encoder"]),
            data=displayable(_exactly(source, str)),
            **{name: _exactly(tree[name], int) for name in ("epochs", "batch_size", "seed")},
            steps=None if tree.get("steps") is None else _exactly(tree["steps"], int),
            extensions=tuple(
                (_exactly(step, int), _exactly(before, int))
                for step, before in tree.get("extensions", ())
            ),
            tree=tree,
        )
    except KeyError as error:
        raise UserError(f"{path} lacks the field {error.args[0]}.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not the configuration of a run: {reason(error)}.") from error


def name_of(part: Any) -> str:
    """The class or function of a part in JSON, without the file that defines it."""
    if isinstance(part, list):
        return " + ".join(map(name_of, part))
    name = part.get("type") or part.get("function") or part.get("session") or ""
    return displayable(name.rpartition(":")[2])


def read_evaluation(path: Path) -> Evaluation:
    """The figures in evaluation.json."""
    return _structure(read_object(path), Evaluation, path)


def read_bad_step(path: Path) -> BadStep:
    """The step in bad_step.json."""
    return _structure(read_object(path), BadStep, path)


def read_init(path: Path) -> InitRecord:
    """The weights that a run started from, in init.json."""
    return _structure(read_object(path), InitRecord, path)


def read_identity(path: Path) -> Identity:
    """The identity of the data in data.json."""
    return _structure(read_object(path), Identity, path)


def read_metrics(path: Path) -> Metrics:
    """The lines of metrics.jsonl that are whole, by step.

    The last line of a run in progress may be incomplete. Other damaged lines, and values that are
    not numbers (`LISTS`: lists of numbers of one length; `TEXTS`: text), are left out with a note.

    Raises:
      UserError: the file cannot be read, or none of its lines can be.
    """
    *whole, last = read_bytes(path).split(b"\n")
    lines, wrong = [], []
    lengths: dict[str, int] = {}
    for number, data in enumerate([*whole, last], 1):
        if not data.strip():
            continue
        try:
            lines.append(_line(parse_json(data, path), lengths))
        except ValueError as error:
            if number <= len(whole):
                what = "it is not JSON" if isinstance(error, UserError) else error
                wrong.append(f"line {number}: {what}")
    if wrong and not lines:
        raise UserError(f"{path} has no line that can be read ({wrong[0]}).")
    more = f" and {len(wrong) - 1} more" * (len(wrong) > 1)
    note = f"{path} is damaged in {wrong[0]}{more}; the rest is used." if wrong else ""
    return Metrics(sorted(lines, key=lambda line: line["step"]), note)


def _line(tree: Any, lengths: dict[str, int]) -> dict[str, Any]:
    """A line of metrics; raises ValueError if it is not one. `lengths` are those of lists."""
    if not isinstance(tree, dict):
        raise ValueError(f"it holds {_kind(tree)}")
    step = tree.get("step")
    if type(step) is not int or not 0 <= step < MOST_STEPS:
        raise ValueError("it has no step")
    for name, value in tree.items():
        if name in TEXTS:
            right = isinstance(value, str)
        elif name in LISTS:
            right = isinstance(value, list) and value and all(map(_is_number, value))
            right = right and lengths.setdefault(name, len(value)) == len(value)
        else:
            right = _is_number(value)
        if not right:
            raise ValueError(f"{name} is {_kind(value)}")
    return tree


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**1000)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    number = "a number" if _is_number(value) else "a number that is too large"
    return "null" if value is None else names.get(type(value), number)


def _check_tree(tree: Any) -> None:
    """Raises ValueError for a tree that is nested too deeply, or text with a NUL or surrogates."""
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        inner: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                inner += [*node, *node.values()]
            elif isinstance(node, list):
                inner += node
            elif isinstance(node, str) and ("\0" in node or not _is_path(node)):
                raise ValueError("a string in it has a NUL or a surrogate")
        level = inner


def _is_path(text: str) -> bool:
    """Whether all characters are text or bytes of a file name."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _structure(tree: dict[str, Any], kind: type, path: Path) -> Any:
    try:
        return _CONVERTER.structure(tree, kind)
    except Exception as error:
        raise UserError(f"{path}: {cattrs.transform_error(error)[0]}.") from error


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise TypeError(f"{_kind(value)} is not of type {kind.__name__}")
    if kind is int and abs(value) >= MOST_STEPS:
        raise ValueError("a number is too large")
    return kind(value)


_CONVERTER = cattrs.Converter()
for _type in (int, float, bool, str):
    _CONVERTER.register_structure_hook(_type, _exactly)
