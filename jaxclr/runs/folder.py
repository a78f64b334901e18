"""A run is a folder: config.json, metrics.jsonl, TensorBoard events, checkpoints/, snapshots/, evaluation.json, report.html."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from jaxclr.errors import UserError
from jaxclr.runs import config as configs
from jaxclr.runs import own_methods
from jaxclr.runs.config import Config
from jaxclr.runs.files import locked, write_atomically, writing

_LOCK = ".lock"
# What a process leaves that dies before it has written a configuration: the folder is still as good as empty.
_NOTHING = {_LOCK, "method.py", ".method.py.part", ".config.json.part"}
# The configuration goes last: until then a folder that is being cleared is a run.
_OURS = (
    *("metrics.jsonl", "checkpoints", "snapshots", "evaluation.json", "report.html", "bad_step.json", "tensorboard"),
    *("profile", "method.py", "config.json"),
)


@dataclasses.dataclass(frozen=True)
class RunFolder:
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

    @property
    def profile(self) -> pathlib.Path:
        return self.folder / "profile"

    @property
    def evaluation(self) -> pathlib.Path:
        return self.folder / "evaluation.json"

    @property
    def snapshots(self) -> pathlib.Path:
        return self.folder / "snapshots"

    @property
    def report(self) -> pathlib.Path:
        return self.folder / "report.html"

    @property
    def bad_step(self) -> pathlib.Path:
        return self.folder / "bad_step.json"

    @property
    def method(self) -> pathlib.Path:
        """The source of a method that the user's experiment defines; absent for ours."""
        return self.folder / "method.py"

    @property
    def exists(self) -> bool:
        return (self.folder / "config.json").is_file()

    def finished(self, steps: int, *, evaluated: bool) -> bool:
        """Whether there is a checkpoint of the last step, a report, and, where there can be one, an evaluation of that step."""
        if not (self.checkpoints / str(steps)).is_dir() or not self.report.is_file():
            return False
        try:
            return not evaluated or json.loads(self.evaluation.read_bytes())["step"] == steps
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folder, which is made if need be.

        Raises:
          UserError: the folder is in use, is no run, or cannot be written.
        """
        self._check_ours()
        with locked(self.folder / _LOCK):
            yield

    def config(self) -> Config:
        """The configuration in the folder.

        Raises:
          UserError: the folder is no run, or its configuration cannot be read.
        """
        path = self.folder / "config.json"
        if not path.is_file():
            raise UserError(f"{self.folder} is no run: it has no config.json. Give the folder of a run.")
        try:
            if self.method.is_file():
                own_methods.define(self.method)
            return configs.from_json(path.read_text())
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def create(self, config: Config, *, overwrite: bool) -> None:
        """Makes the folder and writes the configuration.

        Raises:
          UserError: the folder holds something already and is not to be overwritten, is not a run, or cannot be written.
        """
        self._check_ours()
        if self.exists and not overwrite:
            raise UserError(
                f"{self.folder} holds a run already. Continue it with `jaxclr resume {self.folder}`, "
                "replace it with --overwrite, or give another folder with --out."
            )
        with writing(self.folder):
            for name in _OURS:
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            if source := own_methods.own_source(config.method):
                write_atomically(self.method, source.read_text())
            write_atomically(self.folder / "config.json", configs.to_json(config))

    def _check_ours(self) -> None:
        """Refuses a folder that holds something but no run."""
        with writing(self.folder):
            if self.folder.exists() and not self.folder.is_dir():
                raise UserError(f"{self.folder} is a file; give another folder with --out.")
            if self.folder.exists() and not self.exists:
                if {path.name for path in self.folder.iterdir()} - _NOTHING:
                    raise UserError(
                        f"{self.folder} holds something that is no run; give another folder with --out."
                    )

    def write_bad_step(self, record: dict[str, Any]) -> None:
        """Writes bad_step.json, whole or not at all."""
        with writing(self.folder):
            write_atomically(self.bad_step, json.dumps(record) + "\n")

    def write_evaluation(self, record: dict[str, Any]) -> None:
        """Writes evaluation.json, whole or not at all; what protocols found stays in it."""
        protocols = self._evaluation().get("protocols")
        self._write_evaluation({**record, "protocols": protocols} if protocols else record)

    def write_protocol(self, name: str, record: dict[str, Any]) -> None:
        """Puts what a protocol found under its name into evaluation.json, beside all else that is there."""
        before = self._evaluation()
        self._write_evaluation({**before, "protocols": {**before.get("protocols", {}), name: record}})

    def _evaluation(self) -> dict[str, Any]:
        """What evaluation.json holds; nothing if it is missing or damaged."""
        try:
            record = json.loads(self.evaluation.read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write_evaluation(self, record: dict[str, Any]) -> None:
        with writing(self.folder):
            write_atomically(self.evaluation, json.dumps(record, indent=2) + "\n")
