"""Contents of the folder of a run, read without the run's data, network or devices."""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclr.errors import UserError
from jaxclr.runs.folder import RunFolder

Arrays = Mapping[str, np.ndarray]


class Record(NamedTuple):
    """A run as stored in its folder; missing files are empty here.

    Attributes:
      number: of the run in the report, from 1: the color and the dashes of its lines.
      name: of the folder, with its parents' if others have the same.
      config: config.json.
      lines: those of metrics.jsonl.
      evaluation: evaluation.json.
      fixed: the examples of the snapshots: snapshots/labels.npz and, for images, images.npz.
      snapshots: snapshots/STEP.npz by step.
      bad_step: bad_step.json.
    """

    number: int
    name: str
    config: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    fixed: Arrays
    snapshots: Mapping[int, Arrays]
    bad_step: Mapping[str, Any]

    @property
    def method(self) -> str:
        return name_of(self.config["method"])

    @property
    def last_step(self) -> int:
        return max((line["step"] for line in self.lines), default=0)

    @property
    def extensions(self) -> list[tuple[int, int]]:
        """(step, number of steps before) of each time that the run was made longer."""
        return [(int(step), int(before)) for step, before in self.config.get("extensions", [])]

    @property
    def labeled(self) -> bool:
        return bool(self.fixed) and int(self.fixed["query_labels"].min()) >= 0

    @property
    def pictured(self) -> bool:
        """Whether the examples of the snapshots are images."""
        return "queries" in self.fixed

    @property
    def end(self) -> Arrays:
        """The newest snapshot."""
        return self.snapshots[max(self.snapshots)] if self.snapshots else {}

    def series(self, name: str) -> tuple[list[int], list[Any]]:
        """Steps and values of a name in metrics.jsonl."""
        found = {line["step"]: line[name] for line in self.lines if name in line}
        return list(found), list(found.values())

    def last(self, name: str) -> Any:
        """The last value of a name; None without one."""
        values = self.series(name)[1]
        return values[-1] if values else None


def name_of(part: Any) -> str:
    """The class or function of a part of config.json, without the file that defines it."""
    if isinstance(part, list):
        return " + ".join(map(name_of, part))
    name = part.get("type") or part.get("function") or part.get("session") or ""
    return name.rpartition(":")[2]


def read_records(folders: Sequence[pathlib.Path]) -> list[Record]:
    """The runs in these folders.

    Raises:
      UserError: a folder is not a run, or a file in it cannot be read.
    """
    names = _names(folders)
    return [
        _read(RunFolder(folder), name, number)
        for number, (folder, name) in enumerate(zip(folders, names, strict=True), 1)
    ]


def _read(run: RunFolder, name: str, number: int) -> Record:
    config = run.folder / "config.json"
    if not config.is_file():
        raise UserError(
            f"{run.folder} is not a run: it has no config.json. Give the folder of a run."
        )
    try:
        lines = _lines(run.metrics)
        read = lambda path: json.loads(path.read_text()) if path.is_file() else {}
        snapshots = {
            int(path.stem): _arrays(path)
            for path in run.snapshots.glob("*.npz")
            if path.stem.isdecimal()
        }
        snapshots = dict(sorted(snapshots.items()))
        return Record(
            number=number,
            name=name,
            config=read(config),
            lines=lines,
            evaluation=read(run.evaluation),
            fixed=_fixed(run.snapshots, snapshots),
            snapshots=snapshots,
            bad_step=read(run.bad_step),
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"{run.folder} cannot be read: {error}. Remove the file, or repeat the run."
        ) from error


def _fixed(folder: pathlib.Path, snapshots: Mapping[int, Arrays]) -> Arrays:
    """The examples of the snapshots; without labels if no file has them."""
    if not snapshots:
        return {}
    first = next(iter(snapshots.values()))
    unknown = {
        "gallery_labels": np.full(len(first["gallery"]), -1),
        "query_labels": np.full(len(first["queries"]), -1),
        "classes": np.array([], str),
    }
    # Earlier runs keep the labels in images.npz.
    files = [folder / name for name in ("images.npz", "labels.npz")]
    found = [_arrays(path) for path in files if path.is_file()]
    return functools.reduce(lambda one, other: {**one, **other}, found, unknown)


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Complete lines, by step: the last one of a run in progress may be incomplete."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return sorted(lines, key=lambda line: line["step"])


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """The folders' names, with their parents' where two are alike."""
    short = [folder.resolve().name for folder in folders]
    return [
        name if short.count(name) == 1 else str(folder)
        for name, folder in zip(short, folders, strict=True)
    ]
