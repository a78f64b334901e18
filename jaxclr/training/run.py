"""A run is a folder: config.json, metrics.jsonl, TensorBoard events, checkpoints/, evaluation.json."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from jaxclr.training import config as configs
from jaxclr.training.config import Config
from jaxclr.errors import UserError

_OURS = ("config.json", "metrics.jsonl", "checkpoints", "evaluation.json", "tensorboard")


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a run, all of which can be read without this library."""

    folder: pathlib.Path

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> pathlib.Path:
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.folder / "tensorboard"

    def config(self) -> Config:
        """The configuration in the folder.

        Raises:
          UserError: the folder is no run, or its configuration cannot be read.
        """
        path = self.folder / "config.json"
        if not path.is_file():
            raise UserError(f"{self.folder} is no run: it has no config.json. Give the folder of a run.")
        try:
            return configs.from_json(path.read_text())
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def create(self, config: Config, *, overwrite: bool) -> None:
        """Makes the folder and writes the configuration.

        Raises:
          UserError: the folder holds something already and is not to be overwritten, is not a run, or cannot be written.
        """
        with writing(self.folder):
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                self._clear(overwrite)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / "config.json", configs.to_json(config))

    def _clear(self, overwrite: bool) -> None:
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; give another folder with --out.")
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"{self.folder} holds something that is no run; give another folder with --out."
            )
        if not overwrite:
            raise UserError(
                f"{self.folder} holds a run already. Continue it with `jaxclr resume {self.folder}`, "
                "replace it with --overwrite, or give another folder with --out."
            )
        for name in _OURS:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def write_evaluation(self, record: dict[str, Any]) -> None:
        """Writes evaluation.json, whole or not at all."""
        with writing(self.folder):
            write_atomically(self.folder / "evaluation.json", json.dumps(record, indent=2) + "\n")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file beside its place and moves it there, so that no half of it is ever seen."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[None]:
    """Turns what the file system refuses into a UserError that names the folder and the reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from error
