"""One row, in a process of its own: trained or continued, and evaluated.

Seconds are those of the processor, so that they do not depend on what else runs on the machine.
"""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import rich.console
from benchmarks.measure import machine

from jaxclr import training
from jaxclr.errors import UserError
from jaxclr.evaluation import linear_probe
from jaxclr.evaluation.closing import KNN, SEED, closing_record, monitor
from jaxclr.evaluation.knn import knn_accuracy
from jaxclr.evaluation.subject import Subject
from jaxclr.runs.folder import RunFolder
from jaxclr.training.compilation_cache import compilation_cache
from jaxclr.version import __version__

from .grid import BASELINES, RAW, UNTRAINED, Row, config

FEATURES = {RAW: "raw pixels", UNTRAINED: "untrained"}  # in the closing record


def measure(row: Row, folder: pathlib.Path, tfds: str | None = None) -> dict[str, Any]:
    """The record of a row. A run in the folder continues; one that diverged is a result too.

    Raises:
      UserError: the run failed for another reason.
      Stopped: a signal was received; the run is saved.
    """
    made = config(row, tfds)
    run = RunFolder(folder, session=made)
    record = {**vars(row), **facts(), "figures": {}, "curves": {}}
    with compilation_cache(), run.locked():
        session = training.open_session(made)
        if row.method in BASELINES:
            state = session.init_state()
        else:
            if not run.exists:
                run.create(session.config, overwrite=False)
            since = time.process_time()
            evaluate = probe if row.data == "cifar10" else monitor
            quiet = rich.console.Console(quiet=True)
            try:
                state = training.train(session, run, console=quiet, evaluate=evaluate)
            except UserError as error:
                if not run.bad_step.exists():
                    raise
                return {**record, "failed": str(error).partition(". ")[0]}
            record["training_seconds"] = round(time.process_time() - since, 1)
            record |= history(run.lines())
        closing = closing_record(session.subject(state), baselines=row.method in BASELINES)
    found = closing["features"][FEATURES.get(row.method, "trained")]
    record["figures"] |= {name: _rounded(figure["mean"]) for name, figure in found.items()}
    return record


def facts() -> dict[str, Any]:
    """Where and with what a row was measured."""
    found = machine()
    return {
        "machine": f"{found['processor']}, {found['devices']}",
        "versions": {"jaxclr": __version__, "jax": found["jax"], "python": found["python"]},
    }


def probe(subject: Subject) -> dict[str, float]:
    """kNN, and the linear probe on all labels."""
    train, test = subject.represent(subject.train), subject.represent(subject.test)
    classes, (k, temperature) = len(subject.classes), KNN[0]
    nearest = knn_accuracy(*train, *test, classes=classes, k=k, temperature=temperature)
    linear = linear_probe(*train, *test, classes=classes, seed=SEED).accuracy
    return {f"knn_{k}": round(nearest, 6), "linear": round(linear, 6)}


def history(lines: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Curves and the last measurements of the embeddings, from the lines of a run."""
    epochs = [line for line in lines if "epoch" in line]
    observed = [line for line in lines if "effective_rank" in line]
    column = lambda rows, name: [_rounded(line[name]) for line in rows]
    curves = {
        name: column(epochs, name)
        for name in ("epoch", "knn_200", "knn_20", "linear")
        if all(name in line for line in epochs)
    }
    curves |= {
        name: column(observed, name) for name in ("step", "effective_rank", "total_variance")
    }
    figures = {
        name: curves[name][-1] for name in ("effective_rank", "total_variance") if curves[name]
    }
    return {"figures": figures, "curves": curves}


def work(task: pathlib.Path) -> None:
    """Reads a row from a file, measures it, and writes its record beside it."""
    asked = json.loads(task.read_text())
    spent = task.with_suffix(".spent")  # by earlier processes, which were stopped
    before = float(spent.read_text()) if spent.exists() else 0.0
    try:
        record = measure(Row(**asked["row"]), pathlib.Path(asked["folder"]), asked["tfds"])
    finally:
        seconds = before + time.process_time()
        spent.write_text(str(seconds))
    record["seconds"] = round(seconds, 1)
    task.with_suffix(".record").write_text(json.dumps(record))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
