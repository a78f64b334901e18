"""`jaxclr.train` and `jaxclr.Run`, which the commands of the command line call."""

import dataclasses
import functools
import html
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import rich.console

from jaxclr.data import Data, absolute
from jaxclr.errors import UserError, unknown
from jaxclr.evaluation.by_protocol import evaluate
from jaxclr.evaluation.protocols import PROTOCOLS, Protocol
from jaxclr.evaluation.subject import Subject, labeled_splits, load_like
from jaxclr.interop import Loaded, exporting
from jaxclr.interop import embedding as embeddings
from jaxclr.interop import load as load_encoder
from jaxclr.interop.initial import begin, check_same_start, start_from
from jaxclr.paths import Path, expanded
from jaxclr.pretraining import (
    Say,
    check_data,
    create_or_check,
    evaluate_closing,
    filled,
    go_on,
    is_labeled,
    pretrain,
    printer,
    quietly,
)
from jaxclr.pretraining import write_report as write_report
from jaxclr.processes import runtime
from jaxclr.runs import parts
from jaxclr.runs.config import CHANGEABLE, Config, differences
from jaxclr.runs.experiments import Experiment
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.loggers import Logger
from jaxclr.runs.readers import read_bytes
from jaxclr.training.compilation_cache import compilation_cache
from jaxclr.training.judging import open_subject
from jaxclr.training.profile import steps_to_profile
from jaxclr.training.session import open_session


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    init: str | os.PathLike[str] | None = None,
    init_heads: bool = False,
    overwrite: bool = False,
    profile: str | None = None,
    loggers: Sequence[Logger] = (),
    experiment: Experiment | None = None,
    console: rich.console.Console | None = None,
) -> "Run":
    """Trains a configuration in a folder, or continues the run in it from its newest checkpoint.

    Then the encoder is evaluated, if the data have labels and a test split, and report.html is
    written. A finished run is returned unchanged, unless it is to have more epochs or steps: then
    it goes on from its newest checkpoint, and from there on all schedules are those of the longer
    run. Frequencies, memory limits and workers may change when a run goes on. In the main thread,
    SIGTERM and SIGINT (a notebook's interrupt) stop training after the current step, with a
    checkpoint.

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
      out: the folder of the run, which is created if it does not exist; in a bucket its URL, gs://
        or s3://.
      init: start from the encoder of this run's folder or file of weights; init.json records what
        was taken. See `interop.initial.start_from`.
      init_heads: start from its heads too, where their shapes allow.
      overwrite: replace an existing run instead of continuing it.
      profile: "START:STOP", steps to trace into the folder's profile/.
      loggers: further destinations of the metrics, such as `training.Wandb()`.
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
    folder = RunFolder(expanded(out), session=config)
    say = printer(console)
    with quietly(), compilation_cache():
        session = open_session(dataclasses.replace(config, extensions=()))
        steps = range(0)
        if profile is not None:
            steps = runtime.run_on_all(lambda: steps_to_profile(profile, session.steps))
        with runtime.hold_on_first(folder.locked()):
            start = None
            if init is not None and (overwrite or not folder.exists):
                started = lambda: start_from(session, init, heads=init_heads)
                start = runtime.run_on_all(started)

            def create() -> None:
                if folder.exists and not overwrite:
                    check_same_start(folder, init, init_heads)
                record = start and start.record
                create_or_check(folder, session, experiment, overwrite=overwrite, init=record)

            runtime.run_on_first(create)
            session = go_on(folder, session, say)
            if folder.finished(session.steps, evaluated=is_labeled(session)):
                say(f"{folder.folder} holds this run already, and it is finished.")
            else:
                begin(session, folder, start, say)
                pretrain(session, folder, console, say, profile=steps, loggers=loggers)
    return Run(folder.folder, config=config)


class Run:
    """A run in a folder that `train` created.

    >>> run = jaxclr.Run("runs/first")  # doctest: +SKIP
    >>> run.metrics()["loss"]  # doctest: +SKIP

    Args:
      folder: the folder of the run; in a bucket its URL, gs:// or s3://.
      config: a configuration with the parts that only a Python session has (lambdas, classes of a
        notebook cell, arrays), if the run has any.
      trust: run the code of parts in the folder even if this user did not put it there.

    Raises:
      UserError: the folder is not a run, or its configuration differs from the one given.
    """

    def __init__(
        self, folder: str | os.PathLike[str], config: Config | None = None, *, trust: bool = False
    ):
        self._folder = RunFolder(expanded(folder), session=config, trust=trust)
        if not self._folder.exists:
            raise UserError(
                f"{folder} is not a run: it has no config.json. Give the folder of a run."
            )
        if config is not None:
            changed = differences(self.config, filled(config, self.config))
            if refused := [text for name, text in changed.items() if name not in CHANGEABLE]:
                raise UserError(
                    f"{folder} is a run of another configuration: {'; '.join(refused)}."
                )

    def __repr__(self) -> str:
        return f"jaxclr.Run({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """The path of the run."""
        return self._folder.folder

    @functools.cached_property
    def config(self) -> Config:
        """The configuration, with mean and standard deviation of the channels filled in."""
        return self._folder.config()

    def sources(self) -> list[Path]:
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

    def resume(
        self,
        *,
        data: Data | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        loggers: Sequence[Logger] = (),
        console: rich.console.Console | None = None,
    ) -> "Run":
        """Continues training from the newest checkpoint, evaluates and writes the report.

        More epochs or steps than before extend the run: from its newest checkpoint on, all
        schedules are those of the longer run.

        Args:
          data: where the run's own data are now, as source and dir; None: where they were. The run
            keeps the new place.
          epochs: epochs of the whole run; None: as before.
          steps: steps of the whole run, in place of epochs; None: as before.
          loggers: further destinations of the metrics, such as `training.Wandb()`.
          console: for progress and notes; None for standard output.

        Raises:
          UserError: the run is to be shorter, or it cannot go on.
        """
        say = printer(console)
        with quietly(), compilation_cache():
            config = runtime.run_on_all(lambda: self.config)
            if data is not None:
                config = dataclasses.replace(config, data=_moved(config.data, data))
            if epochs is not None or steps is not None:
                length = {"epochs": config.epochs if epochs is None else epochs, "steps": steps}
                config = dataclasses.replace(config, **length)
            session = open_session(config)
            with runtime.hold_on_first(self._folder.locked()):
                runtime.run_on_first(functools.partial(check_data, self._folder, session))
                if data is not None:
                    names = ["data.source", "data.dir"]
                    runtime.run_on_first(lambda: self._folder.update(config, names))
                session = go_on(self._folder, session, say)
                begin(session, self._folder, None, say)
                pretrain(session, self._folder, console, say, loggers=loggers)
        self.__dict__.pop("config", None)  # its length may be another now
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
          data: what to evaluate on; None for the run's own data. Data of another source are
            evaluated without those of the run, which may be gone.
          seeds: number of repetitions of a protocol that draws at random.
          baselines: whether the closing table includes raw inputs and the untrained encoder.
          console: for notes; None for standard output.
          **settings: fields of the named protocol.

        Returns:
          The record, as written to evaluation.json.

        Raises:
          UserError: the run lacks a checkpoint, or the protocol does not fit data or encoder.
        """
        say = printer(console)
        if protocol is None:
            if settings:
                raise UserError(f"Settings are of protocols; name one: {', '.join(PROTOCOLS)}.")
            return self._evaluate(data, say, baselines=baselines)
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

    def report(self, out: str | os.PathLike[str] | None = None) -> Path:
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

        `data` defaults to the run's own data, in the splits of the run. Other data are embedded as
        a whole, files in the order of their paths: test_fraction is not used.
        Arguments, returns and errors are those of `interop.embedding.embed`.
        """
        with quietly(), compilation_cache():
            return embeddings.embed(
                runtime.run_on_all(self.load),
                self.config.data if data is None else embeddings.whole(data),
                expanded(out),
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
        path = expanded(out)
        exporting.export(loaded, to, path, side=image_size, overwrite=overwrite)
        return loaded

    def _evaluate(self, data: Any, say: Say, *, baselines: bool) -> dict[str, Any]:
        config = runtime.run_on_all(self._with_checkpoint)
        elsewhere = None if data is None or _same_source(data, config.data) else _source(data)

        def opened() -> Subject:
            used = load_like(
                config.data, config.data if data is None else data, config.augmentation
            )
            labeled_splits(used.dataset)
            return open_subject(config, self._folder, used, say)

        with quietly(), compilation_cache(), runtime.hold_on_first(self._folder.locked()):
            subject = runtime.run_on_all(opened)
            return evaluate_closing(subject, self._folder, baselines=baselines, elsewhere=elsewhere)

    def _evaluate_by(self, protocol: Protocol, data: Any, seeds: int, say: Say) -> dict[str, Any]:
        if seeds < 1:
            raise UserError(f"seeds must be at least 1, got {seeds}.")
        config, name = runtime.run_on_all(self._with_checkpoint), _name(protocol)
        data = config.data if data is None else data
        own = _same_source(data, config.data)
        if own and protocol.elsewhere:
            raise UserError(
                f"{name} needs other data than the run's own: give data (--data.source), for "
                "instance tfds:cifar10."
            )
        named = name if own else f"{name} {_source(data)}"

        def opened() -> Subject:
            used = load_like(config.data, data, config.augmentation)
            return open_subject(config, self._folder, used, say)

        with quietly(), compilation_cache(), runtime.hold_on_first(self._folder.locked()):
            subject = runtime.run_on_all(opened)
            record = evaluate(subject, protocol, seeds=seeds)
            runtime.run_on_first(lambda: self._folder.write_protocol(named, record))
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


def _name(protocol: Protocol) -> str:
    """The name in PROTOCOLS, or the name of the class."""
    kind = type(protocol)
    return next((name for name, known in PROTOCOLS.items() if known is kind), kind.__name__)


def _same_source(one: Any, other: Any) -> bool:
    """Whether data are those of a run, perhaps read in another way."""
    return one == other or (
        isinstance(one, Data)
        and isinstance(other, Data)
        and absolute(one).source == absolute(other).source
    )


def _moved(own: Any, data: Any) -> Data:
    """A run's own data at another place."""
    if not isinstance(own, Data) or not isinstance(data, Data):
        raise UserError(
            "A run goes on with its own data; data gives the new source and dir of named ones, got "
            f"{type(data).__name__} for {type(own).__name__}."
        )
    place = absolute(data)
    moved = dataclasses.replace(own, source=place.source, dir=place.dir or own.dir)
    for field in dataclasses.fields(Data):
        if getattr(data, field.name) not in (getattr(moved, field.name), field.default) and (
            field.name not in ("source", "dir")
        ):
            raise UserError(
                f"A run goes on with its own data, and data.{field.name} is another; give only "
                "the source and dir of the place to which they were moved."
            )
    return moved


def _source(data: Any) -> str:
    return getattr(data, "source", "other data")
