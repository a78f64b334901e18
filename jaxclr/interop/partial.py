"""The rows of an unfinished embedding, in files from which the next call continues."""

import json
import os
import pathlib
import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from jaxclr.errors import UserError
from jaxclr.runs.files import write_atomically
from jaxclr.runs.readers import is_there, read_object

EVERY = 10.0  # seconds between files: the work that an interruption loses at most
ROWS = 8192  # from so many rows on, a file is written at once


class PartialTable:
    """A folder FILE.part of numbered .npz files, as a context manager.

    progress.json lists the files that are complete.

    Args:
      folder: created if it does not exist.
      job: what is embedded and how, to recognize an unfinished embedding; strings, numbers and
        lists of them.

    Raises:
      UserError: the folder holds an unfinished embedding of something else.
    """

    def __init__(self, folder: pathlib.Path, job: dict[str, Any]):
        self.folder, self.job = folder, job
        self._files: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if is_there(self._progress):
            found = read_progress(self._progress)
            _check_same(folder, found.job, job)
            self._files = found.files
        self._waiting: list[dict[str, np.ndarray]] = []
        self._seen = {file["split"]: file["seen"] for file in self._files}
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def seen(self, split: str) -> int:
        """How many images of a split are done."""
        return self._seen.get(split, 0)

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split, in their order; after `save`."""
        rows: dict[str, int] = {}
        for file in self._files:
            rows[file["split"]] = rows.get(file["split"], 0) + file["rows"]
        return rows

    def append(
        self,
        split: str,
        embeddings: np.ndarray,
        labels: np.ndarray,
        names: Sequence[str],
        *,
        seen: int,
    ) -> None:
        """Adds rows.

        Args:
          split: the split of all rows; one split is appended after the other.
          embeddings: [n, F] of the job's dtype.
          labels: int32 [n].
          names: n of them.
          seen: images of the split that are done with these rows, damaged ones included.
        """
        if split not in self._seen:
            self.save()
        self._seen[split] = seen
        splits = np.full(len(names), split)
        self._waiting.append(
            {
                "embeddings": embeddings,
                "labels": labels,
                "names": np.array(names, np.str_),
                "splits": splits,
            }
        )
        if self._waiting_rows >= ROWS or time.monotonic() - self._saved > EVERY:
            self.save()

    def save(self) -> None:
        """Writes the rows that are in memory."""
        self._saved = time.monotonic()
        if not self._waiting:
            return
        columns: dict[str, Any] = {
            name: np.concatenate([some[name] for some in self._waiting])
            for name in self._waiting[0]
        }
        with self._file(len(self._files)).open("wb") as file:
            np.savez(file, **columns)
            file.flush()
            os.fsync(file.fileno())
        split = str(columns["splits"][0])
        self._files.append({"split": split, "rows": self._waiting_rows, "seen": self._seen[split]})
        write_atomically(self._progress, json.dumps({"job": self.job, "files": self._files}))
        self._waiting = []

    def column(self, name: str) -> Iterator[np.ndarray]:
        """Rows of "embeddings", "labels" (-1: none), "names" or "splits", a file at a time."""
        for number in range(len(self._files)):
            try:
                with np.load(self._file(number)) as file:
                    rows = file[name]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise UserError(
                    f"{self._file(number)} is damaged ({error}). Remove {self.folder} to start "
                    "anew."
                ) from error
            yield rows

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder)

    @property
    def _waiting_rows(self) -> int:
        return sum(len(some["splits"]) for some in self._waiting)

    @property
    def _progress(self) -> pathlib.Path:
        return self.folder / "progress.json"

    def _file(self, number: int) -> pathlib.Path:
        return self.folder / f"{number}.npz"


class Progress(NamedTuple):
    """progress.json: the job, and split, rows and seen of each complete file."""

    job: dict[str, Any]
    files: list[dict[str, Any]]


def read_progress(path: pathlib.Path) -> Progress:
    """Reads progress.json; raises UserError if it is damaged."""
    tree = read_object(path)
    job, files = tree.get("job"), tree.get("files", [])
    is_count = lambda value: type(value) is int and value >= 0
    if (
        not isinstance(job, dict)
        or not isinstance(files, list)
        or not all(isinstance(file, dict) for file in files)
        or not all(isinstance(file.get("split"), str) for file in files)
        or not all(is_count(file.get(name)) for file in files for name in ("rows", "seen"))
    ):
        raise UserError(f"{path} is damaged. Remove {path.parent} to start anew.")
    return Progress(job, files)


def _check_same(folder: pathlib.Path, found: dict[str, Any], job: dict[str, Any]) -> None:
    changed = [name for name in job if found.get(name) != job[name]]
    if changed:
        name = changed[0]
        raise UserError(
            f"{folder} holds an unfinished embedding of another kind: its {name} is "
            f"{found.get(name)}, asked for is {job[name]}. Finish that one, or start anew with "
            "--overwrite."
        )
