"""Results: a line of JSON for each finished row, in a file for each study."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from .grid import Row

Key = tuple[str, str, str, int]
Record = dict[str, Any]


class Results:
    """The results in a folder; its files are read again for every question."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def of(self, study: str) -> dict[Key, Record]:
        """The records of a study by the key of their row, in the order of the file."""
        path = self._path(study)
        lines = path.read_text().splitlines() if path.exists() else []
        records = map(json.loads, lines)
        return {key_of(record): record for record in records}

    def everything(self) -> list[Record]:
        """The records of all studies."""
        names = sorted(path.stem for path in self.folder.glob("*.jsonl"))
        return [record for name in names for record in self.of(name).values()]

    def write(self, record: Record) -> None:
        """Adds or replaces a record; the file stays sorted."""
        self._save(record["study"], {**self.of(record["study"]), key_of(record): record})

    def remove(self, key: Key) -> None:
        """Takes a record out."""
        self._save(key[0], {k: v for k, v in self.of(key[0]).items() if k != key})

    def finished(self, row: Row) -> bool:
        """Whether there is a record of the row, with the same settings."""
        record = self.of(row.study).get(row.key)
        return record is not None and record["changes"] == row.changes

    def _path(self, study: str) -> pathlib.Path:
        return self.folder / f"{study}.jsonl"

    def _save(self, study: str, records: Mapping[Key, Record]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(records[key]) + "\n" for key in sorted(records)]
        partial = self._path(study).with_suffix(".partial")
        partial.write_text("".join(lines))
        os.replace(partial, self._path(study))


def key_of(record: Record) -> Key:
    """The key of the row of a record."""
    return record["study"], record["method"], record["setting"], record["seed"]


def row_of(record: Mapping[str, Any]) -> Row:
    """The row of a record."""
    return Row(**{field.name: record[field.name] for field in dataclasses.fields(Row)})
