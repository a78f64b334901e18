"""Further destinations of a run's metrics, beside metrics.jsonl and TensorBoard."""

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from jaxclr.errors import UserError, optional, reason
from jaxclr.paths import Path, in_bucket
from jaxclr.processes import runtime
from jaxclr.runs import buckets
from jaxclr.runs.files import make_folder, write_atomically, writing

Send = Callable[[int, Mapping[str, Any]], None]


class Logger(Protocol):
    """A destination of metrics. With several processes, only the first one calls it."""

    def start(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Called before training, and again when a run goes on.

        Args:
          folder: of the run.
          config: the configuration, as in config.json.
        """

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Takes metrics of a step.

        A step has several calls. A run that was killed goes on from its newest checkpoint, and so
        repeats steps.

        Args:
          step: number of completed steps.
          values: numbers, lists of numbers (`spectrum`, histograms of cosines), and texts
            (`warning`), by name. After training, figures of the closing evaluation.
        """

    def close(self) -> None:
        """Called at the end, also of a run that was stopped or failed."""


@dataclasses.dataclass
class Wandb:
    """Weights & Biases; needs `jaxclr[wandb]`.

    Its environment variables apply, such as WANDB_PROJECT, and WANDB_MODE=offline, which writes to
    RUN/wandb for a later `wandb sync`. A run that goes on stays the same run there.
    """

    project: str | None = None
    """The project; None: WANDB_PROJECT."""

    entity: str | None = None
    """The user or team; None: WANDB_ENTITY."""

    def start(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Starts the run there, or continues it."""
        wandb = optional("wandb")
        known = folder / "wandb" / "id"
        with writing(folder):
            if not known.exists():
                make_folder(known.parent)
                write_atomically(known, uuid.uuid4().hex[:8])
            name = known.read_text()
        self._folder = folder
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            name=folder.name,
            id=name,
            resume="allow",
            dir=buckets.local(folder),
            config=dict(config),
        )
        # Plots are over this number, which may repeat, rather than over wandb's own, which may not.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Sends the numbers of a step."""
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self._run.log({**numbers, "step": step})

    def close(self) -> None:
        """Ends the run there, and uploads its files if the folder is in a bucket."""
        self._run.finish()
        if in_bucket(self._folder):
            buckets.upload(buckets.local(self._folder) / "wandb", self._folder / "wandb")


LOGGERS: dict[str, type[Wandb]] = {"wandb": Wandb}


@contextlib.contextmanager
def sending(
    loggers: Sequence[Logger],
    folder: Path,
    config: Mapping[str, Any],
    *,
    say: Callable[[str], None],
) -> Iterator[Send]:
    """Starts loggers on the first process, and closes them at the end.

    A logger that fails later is left out with a sentence: training goes on.

    Args:
      loggers: the loggers.
      folder: of the run.
      config: the configuration, as in config.json.
      say: called with a sentence on each logger that fails.

    Yields:
      A function that gives metrics of a step to all of them.

    Raises:
      UserError: a logger cannot be started.
    """
    working = list(loggers) if runtime.is_first() else []

    def attempt(logger: Logger, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a logger may raise anything
            if logger in working:
                working.remove(logger)
                say(f"{_name(logger)} gets no further metrics: {reason(error)}.")

    def send(step: int, values: Mapping[str, Any]) -> None:
        for logger in list(working):
            attempt(logger, lambda logger=logger: logger.write(step, values))

    with contextlib.ExitStack() as stack:
        for logger in loggers:
            runtime.run_on_first(lambda logger=logger: _start(logger, folder, config))
            if logger in working:
                stack.callback(attempt, logger, logger.close)
        yield send


def _start(logger: Logger, folder: Path, config: Mapping[str, Any]) -> None:
    try:
        logger.start(folder, config)
    except UserError:
        raise
    except Exception as error:  # a logger may raise anything
        raise UserError(
            f"{_name(logger)} cannot be started: {reason(error)}. Fix this, or remove the logger."
        ) from error


def _name(logger: Logger) -> str:
    return type(logger).__name__
