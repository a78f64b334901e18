"""The linear probe against scikit-learn's logistic regression, on the features of any run.

    jaxclr embed RUN --out FEATURES.npz
    python experiments/benchmarks/linear.py FEATURES.npz [--seeds 3] [--out FILE.json]

Both minimize the mean loss and a ridge on the same standardized features by L-BFGS: scikit-learn's
with its default ridge, ours with the one that held-out training images choose. Seconds include
compilation.
"""

import dataclasses
import pathlib
import time
from typing import Any

import numpy as np
import rich.table
import tyro
from measure import Output, machine, number, verdict
from sklearn.linear_model import LogisticRegression

from jaxclr.evaluation import feature_scale, linear_probe
from jaxclr.evaluation.subject import Features

POINTS_BAR = 0.3


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """The linear probe against scikit-learn's logistic regression."""

    features: tyro.conf.Positional[pathlib.Path]
    """Embeddings of a run's training and test images, by `jaxclr embed`."""

    seeds: int = 3
    """Of our held-out images."""


def main(options: Options) -> None:
    record = measure(options)
    options.tell(record, tables(record))


def measure(options: Options) -> dict[str, Any]:
    """All figures."""
    with np.load(options.features) as file:
        values, labels, splits = (
            file["embeddings"].astype(np.float32),
            file["labels"],
            file["splits"],
        )
    train, test = (
        Features(values[splits == name], labels[splits == name]) for name in ("train", "test")
    )
    probe = lambda seed: linear_probe(*train, *test, classes=int(labels.max()) + 1, seed=seed)

    start = time.perf_counter()
    tried = [probe(seed) for seed in range(options.seeds)]
    ours = (time.perf_counter() - start) / options.seeds

    mean, std = feature_scale(train.values)
    start = time.perf_counter()
    oracle = LogisticRegression(max_iter=10_000)
    oracle.fit((train.values - mean) / std, train.labels)
    theirs = time.perf_counter() - start
    return {
        "machine": machine(),
        "features": {
            "train": len(train.labels),
            "test": len(test.labels),
            "width": values.shape[1],
        },
        "ours": [probe.accuracy for probe in tried],
        "chosen": [probe.l2 for probe in tried],
        "ours_seconds": ours,
        "theirs": float(oracle.score((test.values - mean) / std, test.labels)),
        "theirs_seconds": theirs,
        "theirs_iterations": int(oracle.n_iter_[0]),
    }


def tables(record: dict[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    sizes, ours = record["features"], 100 * np.array(record["ours"])
    theirs = 100 * record["theirs"]
    apart = abs(ours.mean() - theirs)
    table = rich.table.Table(
        f"{sizes['train']:,} training and {sizes['test']:,} test rows, D = {sizes['width']}", ""
    )
    spread = f" ± {ours.std(ddof=1):.2f}" if len(ours) > 1 else ""
    table.add_row("accuracy, jaxclr", f"{ours.mean():.2f}{spread} % over {len(ours)} seeds")
    table.add_row(
        "accuracy, scikit-learn", f"{theirs:.2f} % after {record['theirs_iterations']} iterations"
    )
    table.add_row("difference, points", f"{apart:.2f}; {verdict(apart, most=POINTS_BAR)}")
    table.add_row("seconds, jaxclr, a seed", number(record["ours_seconds"]))
    table.add_row("seconds, scikit-learn", number(record["theirs_seconds"]))
    return [table]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
