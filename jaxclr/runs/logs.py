"""The logs of a run in training: metrics.jsonl, TensorBoard, and a progress bar in a terminal."""

import contextlib
import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress
import rich.table

# Protocol Buffers creates these classes when the modules are imported.
from tensorboardX.proto.event_pb2 import (
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from jaxclr.paths import in_bucket
from jaxclr.processes import runtime
from jaxclr.runs import buckets
from jaxclr.runs.files import make_folder, write_atomically, writing
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.loggers import Send
from jaxclr.text import print_text


def open_logs(
    run: RunFolder, *, start: int, steps: int, console: rich.console.Console, send: Send
) -> "Logs | Silence":
    """`Logs` on the first process, `Silence` on the others; arguments as for `Logs`."""
    if not runtime.is_first():
        return Silence()
    return Logs(run, start=start, steps=steps, console=console, send=send)


def nowhere(step: int, values: Mapping[str, Any]) -> None:
    """Sends metrics to no other destination."""


class Silence(contextlib.nullcontext):
    """A `Logs` that writes nothing."""

    def __init__(self) -> None:
        super().__init__(self)

    def write(self, step: int, values: Mapping[str, Any]) -> None: ...

    def progress(self, step: int, text: str) -> None: ...

    def publish(self) -> None: ...

    def say(self, text: str) -> None: ...


class Logs:
    """Writers of a run's metrics, used as a context manager.

    Files of a run in a bucket are written on this machine; `publish` uploads them.

    TensorBoard's file is written here, unbuffered. The thread of tensorboardX's SummaryWriter ends
    silently on a full disk, and its RecordWriter either buffers, which loses events when a process
    is killed, or waits for the disk.

    Args:
      run: the folder to write into.
      start: steps taken so far; lines of later steps, left by an interrupted run, are dropped.
      steps: total number of steps.
      console: shows a progress bar if it is a terminal, otherwise a line at every tenth of the run.
      send: gives the metrics of a step to other destinations.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        start: int,
        steps: int,
        console: rich.console.Console,
        send: Send = nowhere,
    ):
        self._run = run
        self._steps = steps
        self._console = console
        self._send = send
        self._last_tenth = 0
        here = RunFolder(buckets.local(run.folder))
        with writing(run.folder):
            kept = [json.dumps(line) + "\n" for line in run.lines() if line["step"] <= start]
            write_atomically(here.metrics, "".join(kept))
            self._file = here.metrics.open("a", buffering=1)
            make_folder(here.tensorboard)
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
            self._events = (here.tensorboard / name).open("wb", buffering=0)
            self._written = {here.metrics: run.metrics}
            self._written[here.tensorboard / name] = run.tensorboard / name
            self._event(0, file_version="brain.Event:2")
            # TensorBoard drops this step and later ones from earlier files.
            self._event(start + 1, session_log=SessionLog(status=SessionLog.START))
        columns = (
            # The bar takes the room that the numbers leave.
            rich.progress.BarColumn(None, table_column=rich.table.Column(ratio=1, max_width=40)),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[text]}"),
            rich.progress.TimeRemainingColumn(),
        )
        self._bar = rich.progress.Progress(
            *columns, console=console, disable=not console.is_terminal, expand=True
        )
        self._task = self._bar.add_task("", total=steps, completed=start, text="compiling")

    def __enter__(self) -> "Logs":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        with writing(self._run.folder), self._file:
            self._events.close()
            self.publish()

    def publish(self) -> None:
        """Uploads what was written, if the run is in a bucket.

        Called before a checkpoint is written, so that its metrics are there when it is.
        """
        if in_bucket(self._run.folder):
            with writing(self._run.folder):
                for path, to in self._written.items():
                    write_atomically(to, path.read_bytes())

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the metrics of a step; TensorBoard gets only those that are numbers."""
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        shown = [part for name, value in numbers.items() for part in scalar(name, value).value]
        with writing(self._run.folder):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._event(step, summary=Summary(value=shown))
        self._send(step, values)

    def progress(self, step: int, text: str) -> None:
        """Moves the bar; without a terminal, prints a line at every tenth of the run."""
        if self._console.is_terminal:
            self._bar.update(self._task, completed=step, text=text)
        elif step * 10 // self._steps > self._last_tenth:
            self._last_tenth = step * 10 // self._steps
            print_text(self._console, f"step {step} of {self._steps}  {text}")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        print_text(self._bar.console, text)

    def _event(self, step: int, **fields: Any) -> None:
        data = Event(wall_time=time.time(), step=step, **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self._events.write(length + next(checks) + data + next(checks))
