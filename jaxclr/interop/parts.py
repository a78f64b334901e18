"""The rows of an embedding in the making: files that only grow, and a record of how far they are good."""

import json
import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np

from jaxclr.errors import UserError
from jaxclr.runs.files import write_atomically

EVERY = 10.0  # seconds between records: what an interruption costs at most
_FILES = ("embeddings", "labels", "names")


class Parts:
    """A folder FILE.part, as a context manager. What was recorded last is where the next one who opens it goes on.

    Args:
      folder: made if need be.
      job: what is embedded and how, by which an unfinished embedding is recognised; of strings, numbers and lists of them.

    Raises:
      UserError: the folder holds an unfinished embedding of something else.
    """

    def __init__(self, folder: pathlib.Path, job: dict[str, Any]):
        self.folder, self.job = folder, job
        self._record = {"job": job, "seen": {}, "rows": {}, "width": 0, "bytes": dict.fromkeys(_FILES, 0)}
        folder.mkdir(parents=True, exist_ok=True)
        if self._progress.is_file():
            found = json.loads(self._progress.read_text())
            _check_same(folder, found["job"], job)
            self._record = found
        self._files = {name: (folder / name).open("ab") for name in _FILES}
        for name, file in self._files.items():
            os.truncate(file.fileno(), self._record["bytes"][name])
        self._saved = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        for file in self._files.values():
            file.close()

    def seen(self, split: str) -> int:
        """How many images of a split are done."""
        return self._record["seen"].get(split, 0)

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split, in their order."""
        return self._record["rows"]

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return self._record["width"]

    def append(
        self, split: str, embeddings: np.ndarray, labels: np.ndarray, names: Sequence[str], *, seen: int
    ) -> None:
        """Adds rows.

        Args:
          split: that they are of; splits come one after the other.
          embeddings: [n, F] of the type in the job.
          labels: int32 [n].
          names: n of them.
          seen: images of the split that are done with these rows, damaged ones included.
        """
        self._files["embeddings"].write(embeddings.astype(self.job["dtype"]).tobytes())
        self._files["labels"].write(labels.astype(np.int32).tobytes())
        # Names of files may hold any character but two, a newline included.
        self._files["names"].write("".join(f"{json.dumps(name)}\n" for name in names).encode())
        self._record["width"] = embeddings.shape[1]
        self._record["seen"][split] = seen
        self._record["rows"][split] = self.rows.get(split, 0) + len(embeddings)
        if time.monotonic() - self._saved > EVERY:
            self.save()

    def save(self) -> None:
        """Records what is on disk by then."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self._record["bytes"] = {name: file.tell() for name, file in self._files.items()}
        write_atomically(self._progress, json.dumps(self._record))
        self._saved = time.monotonic()

    def embeddings(self, rows: int) -> Iterator[np.ndarray]:
        """All embeddings, so many rows at a time, [n, F]; after `save`."""
        with (self.folder / "embeddings").open("rb") as file:
            while (some := np.fromfile(file, self.job["dtype"], rows * self.width)).size:
                yield some.reshape(-1, self.width)

    def labels(self) -> np.ndarray:
        """Int32 [N], -1 where there are none."""
        return np.fromfile(self.folder / "labels", np.int32)

    def names(self) -> Iterator[str]:
        """The name of each row."""
        with (self.folder / "names").open() as file:
            yield from map(json.loads, file)

    def remove(self) -> None:
        """Deletes the folder."""
        shutil.rmtree(self.folder)

    @property
    def _progress(self) -> pathlib.Path:
        return self.folder / "progress.json"


def _check_same(folder: pathlib.Path, found: dict[str, Any], job: dict[str, Any]) -> None:
    changed = [name for name in job if found.get(name) != job[name]]
    if changed:
        name = changed[0]
        raise UserError(
            f"{folder} holds an unfinished embedding of another kind: its {name} is {found.get(name)}, asked for is "
            f"{job[name]}. Finish that one, or start anew with --overwrite."
        )
