"""`jaxclr.train` and `jaxclr.Run`, which the commands of the command line call."""

import contextlib
import dataclasses
import functools
import html
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
import rich.console

from jaxclr.errors import MissingExtra, UserError, optional, unknown
from jaxclr.evaluation.by_protocol import evaluate
from jaxclr.evaluation.closing import closing_record, closing_table, monitor
from jaxclr.evaluation.protocols import PROTOCOLS, Protocol
from jaxclr.evaluation.subject import labeled_splits, on_data
from jaxclr.interop import Loaded, exporting
from jaxclr.interop import embedding as embeddings
from jaxclr.interop import load as load_encoder
from jaxclr.processes import runtime
from jaxclr.runs import parts
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.config import Config, differences
from jaxclr.runs.experiments import Experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.readers import read_bytes
from jaxclr.steps.state import State
from jaxclr.text import print_text
from jaxclr.training.compilation_cache import compilation_cache
from jaxclr.training.loop import train as train_session
from jaxclr.training.profile import steps_to_profile
from jaxclr.training.session import Session, open_session

FEW_IMAGES = 10_000  # up to this many, training also ends with probes of the baselines

Say = Callable[[str], None]


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    profile: str | None = None,
    experiment: Experiment | None = None,
    console: rich.console.Console | None = None,
) -> "Run":
    """Trains a configuration in a folder, or continues the run in it from its newest checkpoint.

    Then the encoder is evaluated, if the data have labels and a test split, and report.html is
    written. A finished run is returned unchanged. In the main thread, SIGTERM and SIGINT (a
    notebook's interrupt) stop training after the current step, with a checkpoint.

    >>> config = jaxclr.Config(
    ...     method=jaxclr.methods.SimAffinity(temperature=0.2).with_heads(hidden=128, out=64),
    ...     encoder=jaxclr.encoders.SmallConv(),
    ...     augmentation=jaxclr.augment.AUGMENTATIONS["digits"],
    ...     epochs=20,
    ...     batch_size=128,
    ...     warmup_epochs=1.0,
    ... )
    >>> run = jaxclr.train(config, out="runs/first")  # doctest: +SKIP

    Args:
      config: what to train.
      out: the folder of the run, which is created if it does not exist.
      overwrite: replace an existing run instead of continuing it.
      profile: "START:STOP", steps to trace into the folder's profile/.
      experiment: the file whose `config()` returned the configuration, to read the run without it.
      console: for progress and notes; None for standard output.

    Returns:
      The run.

    Raises:
      UserError: parts do not fit each other, the folder has a run of another configuration, the
        data cannot be loaded, or training failed for a reason that the user can fix.
      Stopped: a signal was received; the run is saved.
    """
    parts.check_not_running_copy()
    folder = RunFolder(pathlib.Path(out).expanduser(), session=config)
    say = _printer(console)
    with _quietly(), compilation_cache():
        session = open_session(config)
        steps = range(0)
        if profile is not None:
            steps = runtime.run_on_all(lambda: steps_to_profile(profile, session.steps))
        with runtime.hold_on_first(folder.locked()):
            create = lambda: _create_or_check(folder, session, experiment, overwrite=overwrite)
            runtime.run_on_first(create)
            if folder.finished(session.steps, evaluated=_is_labeled(session)):
                say(f"{folder.folder} holds this run already, and it is finished.")
            else:
                _train(session, folder, console, say, steps)
    return Run(folder.folder, config=config)


class Run:
    """A run in a folder that `train` created.

    >>> run = jaxclr.Run("runs/first")  # doctest: +SKIP
    >>> run.metrics()["loss"]  # doctest: +SKIP

    Args:
      folder: the folder of the run.
      config: a configuration with the parts that only a Python session has (lambdas, classes of a
        notebook cell, arrays), if the run has any.
      trust: run the code of parts in the folder even if this user did not put it there.

    Raises:
      UserError: the folder is not a run, or its configuration differs from the one given.
    """

    def __init__(
        self, folder: str | os.PathLike[str], config: Config | None = None, *, trust: bool = False
    ):
        self._folder = RunFolder(pathlib.Path(folder).expanduser(), session=config, trust=trust)
        if not self._folder.exists:
            raise UserError(
                f"{folder} is not a run: it has no config.json. Give the folder of a run."
            )
        if config is not None:
            changed = differences(self.config, _filled(config, self.config))
            if changed:
                raise UserError(
                    f"{folder} is a run of another configuration: {'; '.join(changed)}."
                )

    def __repr__(self) -> str:
        return f"jaxclr.Run({str(self.folder)!r})"

    @property
    def folder(self) -> pathlib.Path:
        """The path of the run."""
        return self._folder.folder

    @functools.cached_property
    def config(self) -> Config:
        """The configuration, with mean and standard deviation of the channels filled in."""
        return self._folder.config()

    def sources(self) -> list[pathlib.Path]:
        """The copied files of parts, which are run when the configuration is read."""
        return [self.folder / name for name in self._folder.sources()]

    def metrics(self) -> dict[str, np.ndarray]:
        """The logged metrics: a column for each name and "step", a row for each logged step.

        Metrics that were not measured at a step are NaN. Metrics of several numbers (the spectrum,
        histograms) have columns [steps, K].
        """
        lines: dict[int, dict[str, Any]] = {}
        for line in self._folder.lines():
            lines.setdefault(line["step"], {}).update(line)
        rows = [lines[step] for step in sorted(lines)]
        names = {
            name: value
            for row in rows
            for name, value in row.items()
            if isinstance(value, int | float | list)
        }
        columns = {}
        for name, example in names.items():
            missing = np.full(len(example), np.nan) if isinstance(example, list) else np.nan
            columns[name] = np.asarray([row.get(name, missing) for row in rows])
        return {
            "step": np.asarray(sorted(lines), np.int64),
            **{k: v for k, v in columns.items() if k != "step"},
        }

    def resume(self, *, console: rich.console.Console | None = None) -> "Run":
        """Continues training from the newest checkpoint, evaluates and writes the report."""
        say = _printer(console)
        with _quietly(), compilation_cache():
            session = open_session(runtime.run_on_all(lambda: self.config))
            with runtime.hold_on_first(self._folder.locked()):
                _train(session, self._folder, console, say, range(0))
        return self

    def evaluate(
        self,
        protocol: str | Protocol | None = None,
        *,
        data: Any = None,
        seeds: int = 1,
        baselines: bool = True,
        console: rich.console.Console | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Evaluates the newest checkpoint and writes the record to evaluation.json.

        >>> run.evaluate("fewshot", per_class=(1, 5))["figures"]  # doctest: +SKIP

        Args:
          protocol: a name in `evaluation.protocols.PROTOCOLS`, or a protocol; None for the closing
            table of kNN and linear probes.
          data: what to evaluate on; None for the run's own data.
          seeds: number of repetitions of a protocol that draws at random.
          baselines: whether the closing table includes raw inputs and the untrained encoder.
          console: for notes; None for standard output.
          **settings: fields of the named protocol.

        Returns:
          The record, as written to evaluation.json.

        Raises:
          UserError: the run lacks a checkpoint, or the protocol does not fit data or encoder.
        """
        say = _printer(console)
        if protocol is None:
            if settings or data is not None:
                raise UserError(
                    f"Settings and data are of protocols; name one: {', '.join(PROTOCOLS)}."
                )
            return self._evaluate(say, baselines=baselines)
        if isinstance(protocol, str):
            if protocol not in PROTOCOLS:
                raise unknown("protocol", protocol, PROTOCOLS)
            fields = [field.name for field in dataclasses.fields(PROTOCOLS[protocol])]
            for name in settings:
                if name not in fields:
                    raise unknown(f"setting of {protocol}", name, fields)
            protocol = PROTOCOLS[protocol](**settings)
        elif settings:
            raise UserError("Settings need a protocol's name; give them to the protocol itself.")
        return self._evaluate_by(protocol, data, seeds, say)

    def load(self, *, view: int = 0) -> Loaded:
        """Loads the encoder of the newest checkpoint; see `jaxclr.load`."""
        return load_encoder(self._folder, view=view)

    def report(self, out: str | os.PathLike[str] | None = None) -> pathlib.Path:
        """Writes report.html, which needs no other file, and returns its path."""
        return write_report([self.folder], out)

    def embed(
        self,
        out: str | os.PathLike[str],
        data: Any = None,
        *,
        dtype: Literal["float32", "float16"] = "float32",
        overwrite: bool = False,
        report: Callable[[int, int], None] = lambda done, count: None,
    ) -> dict[str, int]:
        """Writes the representations of all examples to a .npz or .parquet file.

        `data` defaults to the run's own data.
        Arguments, returns and errors are those of `interop.embedding.embed`.
        """
        with _quietly(), compilation_cache():
            return embeddings.embed(
                self.load(),
                self.config.data if data is None else data,
                pathlib.Path(out).expanduser(),
                dtype=dtype,
                overwrite=overwrite,
                report=report,
            )

    def export(
        self,
        out: str | os.PathLike[str],
        to: exporting.Format,
        *,
        image_size: int | None = None,
        overwrite: bool = False,
    ) -> Loaded:
        """Writes the encoder as safetensors or StableHLO; see `interop.exporting.export`."""
        loaded = self.load()
        path = pathlib.Path(out).expanduser()
        exporting.export(loaded, to, path, side=image_size, overwrite=overwrite)
        return loaded

    def _evaluate(self, say: Say, *, baselines: bool) -> dict[str, Any]:
        config = runtime.run_on_all(self._with_checkpoint)
        with _quietly(), compilation_cache():
            session = open_session(config)
            runtime.run_on_all(lambda: labeled_splits(session.dataset))
            with runtime.hold_on_first(self._folder.locked()):
                state = newest(session, self._folder, say)
                return _evaluate(session, self._folder, state, baselines=baselines)

    def _evaluate_by(self, protocol: Protocol, data: Any, seeds: int, say: Say) -> dict[str, Any]:
        if seeds < 1:
            raise UserError(f"seeds must be at least 1, got {seeds}.")
        config, name = self._with_checkpoint(), _name(protocol)
        data = config.data if data is None else data
        own = data == config.data or getattr(data, "source", 0) == getattr(config.data, "source", 1)
        if own and protocol.elsewhere:
            raise UserError(
                f"{name} needs other data than the run's own: give data (--data.source), for "
                "instance tfds:cifar10."
            )
        with _quietly(), compilation_cache():
            session = open_session(config)
            with self._folder.locked():
                state = newest(session, self._folder, say)
                record = evaluate(on_data(session.subject(state), data), protocol, seeds=seeds)
                self._folder.write_protocol(
                    name if own else f"{name} {getattr(data, 'source', 'other data')}", record
                )
        return record

    def _with_checkpoint(self) -> Config:
        config = self.config
        if not self._folder.checkpoints.is_dir():
            raise UserError(
                f"{self.folder} has no checkpoint yet; continue it with "
                f"`jaxclr resume {self.folder}`."
            )
        return config

    def _repr_html_(self) -> str:
        """The report, inside a notebook."""
        path = self._folder.report if self._folder.report.is_file() else self.report()
        page = html.escape(read_bytes(path).decode(errors="replace"), quote=True)
        style, title = "width:100%;height:720px;border:0", html.escape(str(self.folder))
        return f'<iframe srcdoc="{page}" style="{style}" title="{title}"></iframe>'


def write_report(
    folders: list[pathlib.Path],
    out: str | os.PathLike[str] | None = None,
    *,
    channels: Sequence[int] | None = None,
) -> pathlib.Path:
    """Writes one HTML file that compares runs.

    Args:
      folders: folders of the runs.
      out: path of the file; None for report.html, in the folder of a single run, otherwise in the
        current folder.
      channels: one or three channels of images that pictures show, counted from 1; None: the first
        three.

    Returns:
      The path.
    """
    # Imported here: Matplotlib is slow to import.
    write = optional("jaxclr.report.page").write_report

    default = (folders[0] if len(folders) == 1 else pathlib.Path()) / "report.html"
    path = default if out is None else pathlib.Path(out).expanduser()
    write(folders, path, channels=channels)
    return path


def newest(session: Session, folder: RunFolder, say: Say) -> State:
    """The state of the newest undamaged checkpoint."""
    with Checkpoints(folder.checkpoints) as checkpoints:
        return checkpoints.restore(session.state_shape(), say=say)


def _train(
    session: Session,
    folder: RunFolder,
    console: rich.console.Console | None,
    say: Say,
    profile: range,
) -> None:
    """Trains, evaluates and reports."""
    config, train = session.config, session.dataset.train
    kind = "examples" if train.channels is None else "images"
    say(
        f"{type(config.method).__name__} on {session.dataset.name}: {train.size} {kind}, "
        f"{session.steps} steps of {config.batch_size} "
        f"on {session.mesh.size} {session.mesh.devices.flat[0].device_kind} device(s)"
        f"{'' if runtime.is_single() else f' of {jax.process_count()} processes'}"
    )
    for note in session.notes:
        say(note)
    if skipped := session.dataset.skipped:
        say(
            f"{len(skipped)} unreadable file(s) left out: {', '.join(skipped[:5])}"
            f"{' ...' * (len(skipped) > 5)}"
        )
    state = train_session(
        session,
        folder,
        console=console or rich.console.Console(),
        evaluate=monitor,
        profile=profile,
    )
    try:
        labeled_splits(session.dataset)
    except UserError as error:
        say(f"Not evaluated: {error}")
    else:
        record = _evaluate(session, folder, state, baselines=train.size <= FEW_IMAGES)
        if console is not None:
            console.print(closing_table(record))
    try:
        runtime.run_on_first(lambda: write_report([folder.folder], folder.report))
    except MissingExtra as error:
        say(f"No report was written: {error}")


def _evaluate(
    session: Session, folder: RunFolder, state: State, *, baselines: bool
) -> dict[str, Any]:
    record = closing_record(session.subject(state), baselines=baselines)
    runtime.run_on_first(lambda: folder.write_evaluation(record))
    return record


def _create_or_check(
    folder: RunFolder, session: Session, experiment: Experiment | None, *, overwrite: bool
) -> None:
    """Creates the run, or checks that an existing one has this configuration and these sources."""
    if not folder.exists or overwrite:
        folder.create(session.config, overwrite=overwrite, experiment=experiment)
        return
    changed = differences(folder.config(), session.config)
    advice = (
        f"Continue it as it is with `jaxclr resume {folder.folder}`, replace it with --overwrite, "
        "or give another folder with --out."
    )
    if changed:
        raise UserError(
            f"{folder.folder} is a run of another configuration: {'; '.join(changed)}. {advice}"
        )
    if sources := folder.changed_sources(session.config, experiment):
        raise UserError(
            f"{folder.folder} was started with other code in {', '.join(sources)}. {advice}"
        )


def _filled(config: Config, stored: Config) -> Config:
    """A configuration with the mean and deviation that were measured when its run began."""
    if config.data.mean is not None or type(config.data) is not type(stored.data):
        return config
    data = dataclasses.replace(config.data, mean=stored.data.mean, std=stored.data.std)
    return dataclasses.replace(config, data=data)


def _is_labeled(session: Session) -> bool:
    try:
        labeled_splits(session.dataset)
    except UserError:
        return False
    return True


def _name(protocol: Protocol) -> str:
    """The name in PROTOCOLS, or the name of the class."""
    kind = type(protocol)
    return next((name for name, known in PROTOCOLS.items() if known is kind), kind.__name__)


def _printer(console: rich.console.Console | None) -> Say:
    console = console or rich.console.Console()
    console.quiet = console.quiet or not runtime.is_first()
    return functools.partial(print_text, console)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences logs of Orbax, which also raises these errors."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
