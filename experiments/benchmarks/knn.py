"""Time of nearest neighbors, and their memory beyond that of the features.

    python experiments/benchmarks/knn.py [--train 50000] [--test 10000] [--out FILE.json]

Features are random around class centers, with a spread at which neighbors disagree. Time and memory
include compilation. Memory is the peak of this process during the call, less what it held with the
features. Predictions for the first thousand test rows are compared with scikit-learn's.
"""

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
import rich.table
import tyro
from measure import Output, machine, number, resident_mib, verdict
from sklearn.neighbors import KNeighborsClassifier

from jaxclr.evaluation import knn_predict

SECONDS_BAR = 60
MIB_BAR = 1024
CLASSES = 100
COMPARED = 1000


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Time of nearest neighbors, and their memory beyond that of the features."""

    train: int = 50_000
    """Rows among which neighbors are searched."""

    test: int = 10_000
    """Rows whose neighbors are searched."""

    width: int = 512
    """Of a row."""

    k: int = 20
    """Neighbors."""

    temperature: float = 0.07
    """Of their weights."""


def main(options: Options) -> None:
    record = measure(options)
    options.tell(record, tables(record))


def measure(options: Options) -> dict[str, Any]:
    """All figures."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CLASSES, options.width)).astype(np.float32)
    train_y, test_y = (
        rng.integers(0, CLASSES, count).astype(np.int32) for count in (options.train, options.test)
    )
    loose = lambda y: centers[y] + 6 * rng.standard_normal((len(y), options.width), np.float32)
    train_x, test_x = loose(train_y), loose(test_y)
    settings = dict(classes=CLASSES, k=options.k, temperature=options.temperature)

    forget_peak()
    before, start = resident_mib(), time.perf_counter()
    predicted = np.asarray(knn_predict(train_x, train_y, test_x, **settings))
    seconds, mib = time.perf_counter() - start, resident_mib("VmHWM") - before

    oracle = KNeighborsClassifier(
        options.k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distances: np.exp((1 - distances) / options.temperature),
    ).fit(train_x, train_y)
    agreement = np.mean(oracle.predict(test_x[:COMPARED]) == predicted[:COMPARED])
    return {
        "machine": machine(),
        "sizes": dataclasses.asdict(options),
        "seconds": seconds,
        "mib_above_features": mib,
        "accuracy": float(np.mean(predicted == test_y)),
        "agreement": float(agreement),
    }


def forget_peak() -> None:
    """Starts VmHWM again from what is resident now."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def tables(record: dict[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    sizes = record["sizes"]
    table = rich.table.Table(
        f"{sizes['k']} neighbors of {sizes['test']:,} rows among {sizes['train']:,}, "
        f"D = {sizes['width']}",
        "",
    )
    table.add_row(
        "seconds", f"{number(record['seconds'])}; {verdict(record['seconds'], most=SECONDS_BAR)}"
    )
    mib = record["mib_above_features"]
    table.add_row("MiB above the features", f"{number(mib)}; {verdict(mib, most=MIB_BAR)}")
    table.add_row("accuracy", f"{record['accuracy']:.4f}")
    table.add_row("share that scikit-learn predicts too", f"{record['agreement']:.4f}")
    return [table]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
