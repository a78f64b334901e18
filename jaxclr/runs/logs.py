"""What a run says while it trains: metrics.jsonl, TensorBoard, and a progress bar on a terminal."""

import contextlib
import json
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from jaxclr.processes import runtime
from jaxclr.runs.files import write_atomically, writing
from jaxclr.runs.folder import RunFolder


def open_logs(run: RunFolder, *, start: int, steps: int, console: rich.console.Console) -> "Logs | Silence":
    """The writers of the first process; those of the others write nothing. Arguments as of `Logs`."""
    return Logs(run, start=start, steps=steps, console=console) if runtime.is_first() else Silence()


class Silence(contextlib.nullcontext):
    """What `Logs` does, without a word."""

    def __init__(self) -> None:
        super().__init__(self)

    def write(self, step: int, values: Mapping[str, Any]) -> None: ...

    def progress(self, step: int, said: str) -> None: ...

    def say(self, text: str) -> None: ...


class Logs:
    """Writers of a run's metrics, used as a context manager.

    Args:
      run: whose folder to write into.
      start: steps taken already; lines of later steps, left by a run that died, are dropped.
      steps: steps in all.
      console: where the progress bar goes, if it is a terminal; else a line is printed now and then.
    """

    def __init__(self, run: RunFolder, *, start: int, steps: int, console: rich.console.Console):
        self._run = run
        self._steps = steps
        self._console = console
        self._said = 0
        with writing(run.folder):
            write_atomically(run.metrics, "".join(_lines_until(run, start)))
            self._file = run.metrics.open("a", buffering=1)
            self._events = _Events(run.tensorboard, start=start)
        columns = (
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[said]}"),
            rich.progress.TimeRemainingColumn(),
        )
        self._bar = rich.progress.Progress(
            *columns, console=console, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("", total=steps, completed=start, said="compiling")

    def __enter__(self) -> "Logs":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        with writing(self._run.folder), self._file:
            self._events.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """A line of metrics after so many steps."""
        with writing(self._run.folder):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._events.write(step, values)

    def progress(self, step: int, said: str) -> None:
        """Moves the bar; without a terminal, prints a line at every tenth of the run."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, said=said)
        elif step * 10 // self._steps > self._said:
            self._said = step * 10 // self._steps
            self._console.print(f"step {step} of {self._steps}  {said}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(text)


class _Events:
    """TensorBoard's file, written here and now: the thread of tensorboardX's SummaryWriter dies of a full disk unseen."""

    def __init__(self, folder: pathlib.Path, *, start: int):
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._write(0, file_version="brain.Event:2")
        # TensorBoard drops what an earlier file holds of this step and later ones.
        self._write(start + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Numbers alone: histograms, spectra and warnings are in metrics.jsonl."""
        for name, value in values.items():
            if isinstance(value, int | float):
                self._write(step, summary=scalar(name, value))

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, **what: Any) -> None:
        data = Event(wall_time=time.time(), step=step, **what).SerializeToString()
        length = struct.pack("<Q", len(data))
        checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self._file.write(length + next(checks) + data + next(checks))


def _lines_until(run: RunFolder, step: int) -> list[str]:
    if not run.metrics.exists():
        return []
    kept = []
    for line in run.metrics.read_text().splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break  # the last line of a run that died while writing it
    return kept
