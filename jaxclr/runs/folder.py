"""The folder of a run.

Its files: config.json, data.json, init.json, metrics.jsonl, tensorboard/, wandb/, checkpoints/,
snapshots/, profile/, parts/, evaluation.json, bad_step.json, report.html. `buckets` describes how
each of them is written if the folder is in a bucket.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jaxclr.data import Data
from jaxclr.data.identity import Identity
from jaxclr.data.source_options import at_their_place
from jaxclr.errors import UserError
from jaxclr.paths import Path, in_bucket
from jaxclr.runs import buckets, files, parts, readers, trust
from jaxclr.runs import config as configs
from jaxclr.runs.config import Config
from jaxclr.runs.experiments import Experiment, load_experiment
from jaxclr.runs.files import check_path, locked, make_folder, write_atomically, writing
from jaxclr.runs.readers import Description, InitRecord

_LOCK = ".lock"
# A process that dies before it writes a configuration leaves these; such a folder counts as empty.
_LEFTOVERS = {
    *(_LOCK, parts.FOLDER, trust.SIGNATURE, "data.json", "init.json"),
    *(f".{name}.part" for name in (trust.SIGNATURE, "data.json", "init.json", "config.json")),
}
# The contents of a run. The configuration is removed last: until then the folder is still a run.
_CONTENTS = (
    "metrics.jsonl",
    "checkpoints",
    "snapshots",
    "evaluation.json",
    "report.html",
    "bad_step.json",
    "init.json",
    "tensorboard",
    "profile",
    "wandb",
    "method.py",
    parts.FOLDER,
    trust.SIGNATURE,
    "data.json",
    "config.json",
)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of a run; its files can be read without this library.

    Attributes:
      folder: its path.
      session: a configuration with the parts that only a Python session has, if the run has any.
      trust: run the code of parts in the folder even if this user did not put it there.
    """

    folder: Path
    session: Config | None = None
    trust: bool = False

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def profile(self) -> Path:
        return self.folder / "profile"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def bad_step(self) -> Path:
        return self.folder / "bad_step.json"

    @property
    def init(self) -> Path:
        return self.folder / "init.json"

    @property
    def exists(self) -> bool:
        """Whether it is a run: whether it has a config.json.

        Raises:
          UserError: the folder cannot be read.
        """
        return readers.is_there(self.folder / "config.json")

    @property
    def newest_step(self) -> int:
        """The step of the newest checkpoint; 0 without one."""
        return max(files.complete_steps(self.checkpoints), default=0)

    def finished(self, steps: int, *, evaluated: bool) -> bool:
        """Whether the run has a checkpoint of its last step, an evaluation of it, and a report.

        Args:
          steps: number of steps of the run.
          evaluated: whether the run can be evaluated; otherwise no evaluation is needed.
        """
        try:
            if steps not in files.complete_steps(self.checkpoints) or not self.report.is_file():
                return False
            return not evaluated or readers.read_evaluation(self.evaluation).step == steps
        except (OSError, UserError):
            return False

    def data(self) -> Identity | None:
        """The identity of the data with which the run began; None if it was not stored.

        Raises:
          UserError: data.json is damaged.
        """
        path = self.folder / "data.json"
        try:
            return readers.read_identity(path) if readers.is_there(path) else None
        except UserError as error:
            raise UserError(
                f"{error} Restore the file, or delete it to go on without comparing the data."
            ) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds an exclusive lock on the folder, which is created if it does not exist.

        Raises:
          UserError: the folder is in use, is not a run, or cannot hold checkpoints.
        """
        check_path(self.folder)
        self._check_run_or_empty()
        with locked(self.folder / _LOCK):
            yield

    def config(self) -> Config:
        """The configuration in the folder; parts of a user's own are rebuilt by running `sources`.

        Relative paths of data are those of the working folder in which the run was created, if they
        still exist, otherwise those of this one.

        Raises:
          UserError: the folder is not a run, its configuration cannot be read, or code in it is not
            trusted.
        """
        path = self._config
        data = readers.read_bytes(path)
        tree = readers.parse_json(data, path)
        sources = self.sources()
        own = sources or any(map(parts.is_own, parts.names_in(tree)))
        if own and not self.trust:
            trust.check(self.folder, data, sources)
        try:
            session = self._session(tree, sources)
            config = configs.from_json(data.decode(), folder=self._local(sources), session=session)
            if isinstance(config.data, Data):
                found = at_their_place(config.data, tree.get("absolute"))
                config = dataclasses.replace(config, data=found)
            return config
        except parts.SessionOnly as error:
            raise UserError(f"{self.folder}: {error}") from error
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def description(self) -> Description:
        """What the configuration says, without running code of the folder.

        Raises:
          UserError: as for `config`.
        """
        return readers.read_description(self._config)

    @property
    def _config(self) -> Path:
        """The path of the configuration; raises UserError without one."""
        if not self.exists:
            raise UserError(
                f"{self.folder} is not a run: it has no config.json. Give the folder of a run."
            )
        return self.folder / "config.json"

    def sources(self) -> dict[str, bytes]:
        """The copied files of parts, which are run when the run is read; {} if there are none."""
        if in_bucket(self.folder):
            below = (f"{parts.FOLDER}/{name}" for name in buckets.files(self.folder / parts.FOLDER))
            names = [name for name in below if name.endswith(".py")]
            names += {"method.py"} & {*files.names(self.folder)}
        else:
            found = [*(self.folder / parts.FOLDER).rglob("*.py"), *self.folder.glob("method.py")]
            names = [path.relative_to(self.folder).as_posix() for path in found]
        return {name: readers.read_bytes(self.folder / name) for name in names}

    def _session(self, tree: Any, sources: Mapping[str, bytes]) -> Config | None:
        """The source of parts that JSON cannot hold: the given configuration or the experiment."""
        origin = tree.get("experiment") if isinstance(tree, dict) else None
        if self.session is not None or not origin or not parts.session_parts(tree):
            return self.session
        name = f"{parts.FOLDER}/{origin.get('file')}" if isinstance(origin, dict) else ""
        if name not in sources:  # no other file is run
            raise UserError(f"the experiment {name or origin!r} is not in the folder of the run.")
        with parts.running_copy():
            return load_experiment(self._local(sources) / name, method=origin.get("method"))

    def _local(self, sources: Mapping[str, bytes]) -> pathlib.Path:
        """The folder to import the copied sources from: on this machine."""
        folder = buckets.local(self.folder)
        if in_bucket(self.folder):
            for name, text in sources.items():
                make_folder((folder / name).parent)
                write_atomically(folder / name, text)
        return folder

    def changed_sources(self, config: Config, experiment: Experiment | None) -> list[str]:
        """Names of files of parts that differ from those that the run was started with."""
        before = self.sources()
        now = self._copies(config, experiment)
        known = {name for name in before if name != "method.py"}
        return sorted(name for name in known | now.keys() if before.get(name) != now.get(name))

    def _copies(self, config: Config, experiment: Experiment | None) -> dict[str, bytes]:
        tree = parts.describe(config, Config)
        needed = experiment is not None and parts.session_parts(tree)
        copied = parts.copies(config, experiment.file if experiment and needed else None)
        return {f"{parts.FOLDER}/{name}": text for name, text in copied.items()}

    def init_record(self) -> InitRecord | None:
        """The weights that the run started from; None if there were none.

        Raises:
          UserError: the record cannot be read.
        """
        return readers.read_init(self.init) if readers.is_there(self.init) else None

    def create(
        self,
        config: Config,
        *,
        overwrite: bool,
        experiment: Experiment | None = None,
        init: dict[str, Any] | None = None,
        data: Identity | None = None,
    ) -> None:
        """Creates the folder and writes the configuration and the sources of a user's own parts.

        Args:
          config: the configuration of the run.
          overwrite: replace an existing run.
          experiment: the file whose `config()` returned the configuration, if any.
          init: the record of the weights that the run starts from, if any.
          data: the identity of the data, if the run is trained.

        Raises:
          UserError: the folder has a run that is not to be overwritten, is not empty and is not a
            run, or cannot be written.
        """
        self._check_run_or_empty()
        if self.exists and not overwrite:
            raise UserError(
                f"{self.folder} holds a run already. Continue it with "
                f"`jaxclr resume {self.folder}`, replace it with --overwrite, or give another "
                "folder with --out."
            )
        with writing(self.folder):
            for name in _CONTENTS:
                files.remove(self.folder / name)
            make_folder(self.folder)
            sources = self._copies(config, experiment)
            for name, text in sources.items():
                make_folder((self.folder / name).parent)
                write_atomically(self.folder / name, text)
            origin = (
                {}
                if experiment is None
                else {"experiment": {"file": experiment.file.name, "method": experiment.method}}
            )
            if init is not None:
                write_atomically(self.init, json.dumps(init, indent=2) + "\n")
            text = configs.to_json(config, **origin, **_absolute_paths(config))
            own = sources or any(map(parts.is_own, parts.names_in(json.loads(text))))
            if own and (signed := trust.signature(text.encode(), sources)):
                write_atomically(self.folder / trust.SIGNATURE, signed + "\n")
            if data is not None:
                write_atomically(
                    self.folder / "data.json", json.dumps(dataclasses.asdict(data)) + "\n"
                )
            write_atomically(self.folder / "config.json", text)

    def update(self, config: Config, names: Iterable[str]) -> None:
        """Replaces fields in config.json, by dotted name, by those of a configuration.

        A run that this user signed is signed again.
        """
        path, sources = self.folder / "config.json", self.sources()
        with writing(self.folder):
            before = readers.read_bytes(path)
            tree, new = json.loads(before), parts.describe(config, Config)
            for name in names:
                *parents, leaf = name.split(".")
                there, here = tree, new
                for parent in parents:
                    there, here = there[parent], here[parent]
                there[leaf] = here[leaf]
            text = json.dumps(tree, indent=2) + "\n"
            if trust.is_signed(self.folder, before, sources):
                # Both are signed until the configuration is replaced.
                both = [trust.signature(one, sources) or "" for one in (text.encode(), before)]
                write_atomically(self.folder / trust.SIGNATURE, "\n".join(both) + "\n")
            write_atomically(path, text)

    def _check_run_or_empty(self) -> None:
        """Raises UserError if the folder is not empty and is not a run."""
        with writing(self.folder):
            if not self.folder.exists():
                return
            if not self.folder.is_dir():
                raise UserError(f"{self.folder} is a file; give another folder with --out.")
            if not self.exists and {*files.names(self.folder)} - _LEFTOVERS:
                raise UserError(
                    f"{self.folder} is not empty and is not a run; give another folder with --out."
                )

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that can be read, sorted by step.

        Raises:
          UserError: the file cannot be read.
        """
        if not readers.is_there(self.metrics):
            return []
        try:
            return readers.read_metrics(self.metrics).lines
        except UserError as error:
            raise UserError(f"{error} Move it away, or restore a copy of it.") from error

    def write_bad_step(self, record: dict[str, Any]) -> None:
        """Writes bad_step.json atomically."""
        with writing(self.folder):
            write_atomically(self.bad_step, json.dumps(record) + "\n")

    def write_evaluation(self, record: dict[str, Any]) -> None:
        """Writes evaluation.json atomically.

        Records of protocols are kept, and figures of the trained encoder at other steps, such as
        the end of the run before it was extended, as `earlier`.
        """
        before = self._evaluation()
        kept = {
            name: before[name]
            for name in ("protocols", "earlier", "other_data")
            if before.get(name)
        }
        figures, step = before.get("features", {}).get("trained"), before.get("step")
        if figures and step not in (None, record.get("step")):
            kept["earlier"] = {**kept.get("earlier", {}), str(step): figures}
        self._write_evaluation({**record, **kept})

    def write_protocol(self, name: str, record: dict[str, Any]) -> None:
        """Adds the record of a protocol, under its name, to evaluation.json."""
        self.write_named("protocols", name, record)

    def write_named(self, kind: str, name: str, record: dict[str, Any]) -> None:
        """Adds a record, under its kind and name, to evaluation.json."""
        before = self._evaluation()
        self._write_evaluation({**before, kind: {**before.get(kind, {}), name: record}})

    def _evaluation(self) -> dict[str, Any]:
        """The contents of evaluation.json; {} if it is missing or damaged."""
        try:
            readers.read_evaluation(self.evaluation)
            return readers.read_object(self.evaluation)
        except UserError:
            return {}

    def _write_evaluation(self, record: dict[str, Any]) -> None:
        with writing(self.folder):
            write_atomically(self.evaluation, json.dumps(record, indent=2) + "\n")


def _absolute_paths(config: Config) -> dict[str, Any]:
    """The absolute paths of data that were given by relative ones, for config.json."""
    given, full = config.data, configs.with_absolute_paths(config).data
    names = [
        name for name in ("source", "dir") if getattr(given, name, 0) != getattr(full, name, 0)
    ]
    return {"absolute": {name: getattr(full, name) for name in names}} if names else {}
