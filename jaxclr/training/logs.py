"""What a run says while it trains: metrics.jsonl, TensorBoard, and a progress bar on a terminal."""

import json
from collections.abc import Mapping
from typing import Any

import rich.console
import rich.progress
import tensorboardX

from jaxclr.training.run import Run, writing


class Logs:
    """Writers of a run's metrics, used as a context manager.

    Args:
      run: whose folder to write into.
      start: steps taken already; lines of later steps, left by a run that died, are dropped.
      steps: steps in all.
      console: where the progress bar goes, if it is a terminal; else a line is printed now and then.
    """

    def __init__(self, run: Run, *, start: int, steps: int, console: rich.console.Console):
        self._run = run
        self._steps = steps
        self._console = console
        self._said = 0
        with writing(run.folder):
            kept = _lines_until(run, start)
            self._file = run.metrics.open("w", buffering=1)
            self._file.writelines(kept)
            self._board = tensorboardX.SummaryWriter(str(run.tensorboard), purge_step=start)
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
        self._file.close()
        self._board.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """A line of metrics after so many steps."""
        with writing(self._run.folder):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

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


def _lines_until(run: Run, step: int) -> list[str]:
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
