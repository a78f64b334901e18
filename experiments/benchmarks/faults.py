"""Fault injection: runs that are killed and resumed, against one that is not killed.

    python experiments/benchmarks/faults.py [--rounds 50] [--processes 1] [--out FILE.json]
        [--bucket gs|s3] [--failing 0.05]

Each round starts `jaxclr train` on 320 digits in its own process and kills it (SIGKILL) at a random
moment: while it starts, between steps, while a checkpoint is written, or while the trained encoder
is probed. A run that reaches its end, its report included, is compared with the undisturbed run:
the digests of all leaves of the last checkpoint, the evaluation and the metrics must be equal. Then
the next run begins. A run is lost if it differs or if the command cannot resume it. The last run is
not killed any more. A round takes about ten seconds on one core. With `--processes 2` the command
is `jaxclr launch -n 2`, and one of its two processes is killed. With `--bucket` the runs that are
killed are in a bucket of a server on this machine, which answers a share of requests with 503, and
the undisturbed run stays in a local folder.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import rich.table
import tyro
from measure import Output, machine, verdict
from sklearn.datasets import load_digits

from jaxclr.paths import Path, expanded, in_bucket
from jaxclr.runs.checkpoints import read_digests, unfinished
from jaxclr.runs.files import complete_steps
from jaxclr.runs.readers import is_there, read_bytes

ROOT = pathlib.Path(__file__).parents[2]
PHASES = ("start", "steps", "checkpoint", "evaluation")
POLL_SECONDS = 0.002
TINY = (
    *("--observe-every", "0"),
    *("--warmup-epochs", "0", "--batch-size", "64", "--encoder.widths", "4", "8"),
    *("--method.projector.hidden", "12", "--method.projector.out", "8"),
    *("--method.predictor.hidden", "12", "--method.predictor.out", "8"),
)


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """A run that is killed again and again against one that is left alone."""

    rounds: int = 50
    """Deaths."""

    epochs: int = 100
    """Epochs of four steps, with a checkpoint every tenth and a look at kNN every twenty-fifth."""

    processes: int = 1
    """Processes of a run; of several, which `jaxclr launch` starts, any one is killed."""

    seed: int = 0
    """Of the moments."""

    bucket: Literal["gs", "s3"] | None = None
    """Where the runs are that are killed; None: in a local folder."""

    failing: float = 0.0
    """Share of the requests to the bucket that fail."""


class Command:
    """`jaxclr train` into a folder, as often as it takes.

    Args:
      folder: of the run.
      data: the .npz of images, beside which compiled programs are kept.
      epochs: of the run.
      processes: that it has.
    """

    def __init__(self, folder: Path, data: pathlib.Path, *, epochs: int, processes: int = 1):
        experiment = str(ROOT / "experiments" / "digits.py")
        every = (
            "--checkpoint-every",
            str(min(10, epochs)),
            "--evaluate-every",
            str(min(25, epochs)),
        )
        source = ("--data.source", f"npz:{data}", "--data.test-fraction", "0.2")
        length = ("--epochs", str(epochs))
        several = ("launch", "-n", str(processes)) if processes > 1 else ()
        self._arguments = [
            *several,
            "train",
            experiment,
            "--out",
            str(folder),
            *length,
            *every,
            *source,
            *TINY,
        ]
        self._folder, self._compiled = folder, data.parent / "compiled"
        self.poll_seconds = 0.1 if in_bucket(folder) else POLL_SECONDS
        self.steps = 4 * epochs

    def start(self) -> subprocess.Popen:
        program = [sys.executable, "-m", "jaxclr", *self._arguments]
        # Compiled once, by the run that is left alone: most of a start is compilation.
        kept = {
            "JAX_COMPILATION_CACHE_DIR": str(self._compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return subprocess.Popen(
            program,
            cwd=ROOT,
            env={**os.environ, **kept},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, process: subprocess.Popen, moments: random.Random) -> None:
        """Kills the process; if it has children, which are the run, one of these."""
        children = (
            pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        )
        several = self._arguments[0] == "launch" and children
        os.kill(int(moments.choice(children)) if several else process.pid, signal.SIGKILL)

    def reached(self) -> Mapping[str, Callable[[], bool]]:
        """For each phase whether a process that starts now is in it, as far as its folder shows."""
        metrics = self._folder / "metrics.jsonl"
        lines = len(_lines(metrics))
        return {
            "start": lambda: True,
            "steps": lambda: len(_lines(metrics)) > lines,
            "checkpoint": lambda: self.writing,
            "evaluation": lambda: self.newest == self.steps,
        }

    @property
    def writing(self) -> bool:
        """Whether a checkpoint is being written."""
        folder = self._folder / "checkpoints"
        return folder.is_dir() and bool(unfinished(folder))

    @property
    def finished(self) -> bool:
        """Whether the run is finished: its report is written last."""
        return (self._folder / "report.html").exists()

    @property
    def newest(self) -> int:
        """Step of the newest checkpoint, 0 without one."""
        return max(complete_steps(self._folder / "checkpoints"), default=0)

    def result(self) -> dict[str, Any]:
        """Results of a finished run: digests of all leaves, evaluation, metrics of each step."""
        clocked = lambda name: name == "images_per_second" or name.endswith("_seconds")
        lines = map(json.loads, _lines(self._folder / "metrics.jsonl"))
        metrics = [
            {name: value for name, value in line.items() if not clocked(name)} for line in lines
        ]
        return {
            "leaves": read_digests(self._folder / "checkpoints", self.steps),
            "evaluation": json.loads((self._folder / "evaluation.json").read_text()),
            "metrics": [line for line in metrics if len(line) > 1],  # more than the step
        }


def main(options: Options) -> None:
    record = {"machine": machine(), **measure(options)}
    options.tell(record, [table(record)])


def measure(options: Options) -> dict[str, Any]:
    """Every death, and what became of the runs."""
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name, serving(options) as bucket:
        folder = pathlib.Path(name)
        digits = load_digits()
        images = digits.images[:320, :, :, None].astype(np.uint8)
        np.savez(folder / "digits.npz", images=images, labels=digits.target[:320])
        make = lambda where, label: Command(
            where / label,
            folder / "digits.npz",
            epochs=options.epochs,
            processes=options.processes,
        )
        whole = make(folder, "whole")
        lasting = time_phases(whole)
        where = folder if bucket is None else bucket
        if bucket is not None:
            lasting = time_phases(make(where, "timed"))
        runs: list[dict[str, Any]] = []
        deaths = 0
        while deaths < options.rounds:
            command = make(where, f"run-{len(runs)}")
            phases = PHASES[deaths % len(PHASES) :] + PHASES * options.rounds
            run = live(command, phases[: options.rounds - deaths], lasting, moments)
            want, got = whole.result(), command.result() if run["error"] is None else {}
            run["differs"] = [name for name in want if want[name] != got.get(name)]
            run["same"] = not run["differs"]
            runs.append(run)
            deaths += len(run["deaths"])
    lost = sum(not run["same"] for run in runs)
    kept = {"processes": options.processes, "bucket": options.bucket, "failing": options.failing}
    return {"steps": whole.steps, **kept, "runs": runs, "lost": lost}


@contextlib.contextmanager
def serving(options: Options) -> Iterator[Path | None]:
    """Starts the server of a bucket, to which the environment then leads; yields its URL."""
    if options.bucket is None:
        yield None
        return
    program = [sys.executable, str(ROOT / "tests" / "buckets.py"), options.bucket]
    server = subprocess.Popen(
        [*program, str(options.failing)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with server:
        known = json.loads(server.stdout.readline())
        os.environ.update(known["environment"])
        yield expanded(known["url"])
        server.stdin.close()


def time_phases(command: Command) -> dict[str, float]:
    """Seconds of each phase of an undisturbed run.

    Kills during a checkpoint come within 0.1 s.
    """
    reached, started = command.reached(), time.perf_counter()
    process, began = command.start(), {}
    while process.poll() is None:
        for phase in ("steps", "evaluation"):
            if phase not in began and reached[phase]():
                began[phase] = time.perf_counter()
        time.sleep(command.poll_seconds)
    if process.returncode:
        sys.exit(f"The undisturbed run failed: {process.stderr.read()}")
    process.stderr.close()
    ended = time.perf_counter()
    for phase in ("evaluation", "steps"):  # one that went by between two looks
        began.setdefault(phase, began.get("evaluation", ended))
    return {
        "start": round(began["steps"] - started, 3),
        "steps": round(began["evaluation"] - began["steps"], 3),
        "checkpoint": 0.1 if command.poll_seconds == POLL_SECONDS else 0.5,
        "evaluation": round(ended - began["evaluation"], 3),
    }


def live(
    command: Command, phases: Sequence[str], lasting: dict[str, float], moments: random.Random
) -> dict[str, Any]:
    """One run to its end: each process is killed in the next phase, until one ends or fails.

    If a process ends before it is killed, later kills in that phase come sooner.
    """
    deaths: list[dict[str, Any]] = []
    while True:
        phase = phases[len(deaths)] if len(deaths) < len(phases) else None
        reached, process = command.reached(), command.start()
        if phase is not None:
            while process.poll() is None and not reached[phase]():
                time.sleep(command.poll_seconds)
            try:
                process.wait(moments.uniform(0, lasting[phase]))
                lasting[phase] *= 0.7
            except subprocess.TimeoutExpired:
                command.kill(process, moments)
        error = process.communicate()[1]
        if process.returncode not in (
            -signal.SIGKILL,
            128 + signal.SIGKILL,
        ):  # the second is `jaxclr launch`'s
            return {"deaths": deaths, "error": error.strip() if process.returncode else None}
        deaths.append({"phase": phase, "newest": command.newest, "writing": command.writing})
        if command.finished:  # it died on its way out, and the same command would say so
            return {"deaths": deaths, "error": None}


def table(record: Mapping[str, Any]) -> rich.table.Table:
    """Deaths by phase, and the runs, for a person to read."""
    deaths = [death for run in record["runs"] for death in run["deaths"]]
    shown = rich.table.Table(
        f"{record['steps']} steps on digits, processes: {record['processes']}, "
        f"bucket: {record['bucket']}, failing: {record['failing']}",
        "kills",
        "incomplete checkpoints",
        title_justify="left",
    )
    for phase in PHASES:
        here = [death for death in deaths if death["phase"] == phase]
        shown.add_row(phase, str(len(here)), str(sum(death["writing"] for death in here)))
    shown.add_section()
    shown.add_row("all", str(len(deaths)), str(sum(death["writing"] for death in deaths)))
    same = sum(run["same"] for run in record["runs"])
    shown.add_row(f"runs equal to the last bit: {same} of {len(record['runs'])}", "", "")
    shown.add_row(f"lost, {verdict(record['lost'], most=0)}", str(record["lost"]), "")
    return shown


def _lines(path: Path) -> list[str]:
    """Lines of a file that another process writes; [] before it exists."""
    return read_bytes(path).decode().splitlines() if is_there(path) else []


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
