"""Rows are run by one process for each core, and finished ones are written down."""

import dataclasses
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from .grid import BASELINES, VALIDATION, Row
from .results import Record, Results

# Seconds of a row of this data, until one has been measured.
GUESS = {"digits": 60.0, "cifar10": 3600.0}
STOPPED = 75  # exit status of a run that a signal stopped, with its state saved


class Task(Protocol):
    """A row that is being measured."""

    def poll(self) -> int | None: ...

    def record(self) -> Record: ...

    def stop(self) -> None: ...


class Process:
    """A row in a process of its own, on one core: its figures do not depend on other cores.

    Args:
      row: the row.
      core: the number of the core.
      runs: the folder for runs in progress.
      tfds: the folder of prepared data sets.
    """

    def __init__(self, row: Row, core: int, runs: pathlib.Path, tfds: str | None):
        self._folder = runs / row.name
        self._task = pathlib.Path(f"{self._folder}.row")
        self._task.parent.mkdir(parents=True, exist_ok=True)
        asked = {"row": dataclasses.asdict(row), "folder": str(self._folder), "tfds": tfds}
        self._task.write_text(json.dumps(asked))
        script = pathlib.Path(__file__).parents[1] / "evidence.py"
        flags = f"--xla_force_host_platform_device_count={row.devices}"
        self._errors = self._task.with_suffix(".errors").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, str(script), "work", str(self._task)],
            env={**os.environ, "XLA_FLAGS": flags, "OPENBLAS_NUM_THREADS": "1"},
            stderr=self._errors,
            preexec_fn=lambda: _pin(core),
            start_new_session=True,  # an interrupt of the terminal comes to this process alone
        )

    def poll(self) -> int | None:
        return self._process.poll()

    def record(self) -> Record:
        """The record of a row that ended; its folder is removed.

        Raises:
          SystemExit: it has none.
        """
        path = self._task.with_suffix(".record")
        if self._process.returncode == STOPPED:
            sys.exit(STOPPED)
        if self._process.returncode or not path.exists():
            self._errors.seek(0)
            sys.exit(f"{self._task}: {self._errors.read()[-2000:]}")
        record = json.loads(path.read_text())
        self._errors.close()
        for suffix in (".row", ".record", ".errors", ".spent"):
            self._task.with_suffix(suffix).unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        return record

    def stop(self) -> None:
        """Stops it after its current step, with its state saved."""
        self._process.terminate()
        self._process.wait()
        self._errors.close()


def _pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def run_all(
    rows: Iterable[Row],
    start: Callable[[Row, int], Task],
    results: Results,
    *,
    places: Sequence[int],
    say: Callable[[str], None],
) -> None:
    """Runs rows in their order, one on each core, and writes the record of each that ends.

    Rows in progress are stopped, with their state saved, if this is left by an exception.
    """
    waiting = list(reversed(list(rows)))
    running: dict[int, tuple[Row, Task]] = {}
    try:
        while waiting or running:
            for core in places:
                if waiting and core not in running:
                    row = waiting.pop()
                    running[core] = row, start(row, core)
            for core, (row, task) in list(running.items()):
                if task.poll() is not None:
                    del running[core]
                    record = task.record()
                    results.write(record)
                    say(f"{row.name}: {summary(record)}; {len(waiting)} more")
            time.sleep(0.1 if running else 0)
    finally:
        for _, task in running.values():
            task.stop()


def summary(record: Record) -> str:
    """A record in a line."""
    if "failed" in record:
        return record["failed"]
    shown = ("5 labels", "kNN 20", "effective_rank")
    figures = record["figures"]
    return ", ".join(
        [f"{name} {figures[name]:.4g}" for name in shown if name in figures]
        + [f"{record['seconds']:.0f} s"]
    )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Rows of a study that fit into the budget, and the hours of a core that they take."""

    study: str
    rows: list[Row]
    hours: float
    finished: int
    left: int


def estimate_seconds(row: Row, records: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of a row: the median of the nearest kind of rows that were measured.

    Nearest are those of the same study, method and setting; then of study and method; of data and
    method; of study; of data.
    """
    of_data = lambda name: name.removesuffix(VALIDATION)
    kinds: tuple[Callable[[Any], Any], ...] = (
        lambda r: (r["study"], r["method"], r["setting"]),
        lambda r: (r["study"], r["method"]),
        lambda r: (of_data(r["data"]), r["method"]),
        lambda r: r["study"],
        lambda r: of_data(r["data"]),
    )
    trained = [r for r in records if (r["method"] in BASELINES) == (row.method in BASELINES)]
    for kind in kinds:
        same = [r["seconds"] for r in trained if kind(r) == kind(vars(row))]
        if same:
            return statistics.median(same)
    return GUESS[of_data(row.data)]


def plan(
    studies: Mapping[str, Sequence[Row]],
    results: Results,
    *,
    budget: float,
    workers: int,
    methods: Sequence[str] = (),
) -> list[Estimate]:
    """The rows to run, study by study, until the budget is spent.

    Args:
      studies: rows by study, in the order in which they are to run.
      results: what was measured before.
      budget: hours.
      workers: processes at a time.
      methods: the methods to run; empty for all.
    """
    records = results.everything()
    left, estimates = budget * workers, []
    for name, rows in studies.items():
        rows = [row for row in rows if not methods or row.method in methods]
        waiting = [row for row in rows if not results.finished(row)]
        taken, hours = [], 0.0
        for row in waiting:
            cost = estimate_seconds(row, records) / 3600
            if cost > left:
                break
            taken.append(row)
            hours += cost
            left -= cost
        estimates.append(
            Estimate(name, taken, hours, len(rows) - len(waiting), len(waiting) - len(taken))
        )
    return estimates
