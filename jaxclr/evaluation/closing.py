"""The record at the end of a run: kNN and linear probes of its encoder and of baselines."""

import collections
import math
from typing import Any

import jax
import numpy as np
import rich.box
import rich.table
from jax.sharding import Mesh

from jaxclr.data import Split
from jaxclr.errors import UserError
from jaxclr.evaluation.features import Features, shard_rows
from jaxclr.evaluation.few_labels import few_label_probe
from jaxclr.evaluation.knn import knn_accuracy, knn_predict
from jaxclr.evaluation.linear import linear_probe
from jaxclr.evaluation.subject import Subject, labeled_splits
from jaxclr.evaluation.sums import TILE
from jaxclr.steps.examples import batches
from jaxclr.text import displayable

KNN = ((200, 0.1), (20, 0.07))  # (k, temperature): lightly's and solo-learn's settings
LABELS = (1, 5, 10)
DRAWS = 10
SEED = 0  # of label draws and held-out rows: the same for every run, so that runs compare


def monitor(subject: Subject) -> dict[str, float]:
    """kNN accuracy on the test split, for monitoring during training; {} without labels."""
    try:
        train, test = labeled_splits(subject.dataset)
    except UserError:
        return {}
    accuracies = _knn(subject.classes, subject.represent(train), subject.represent(test))
    return {f"knn_{k}": round(accuracy, 6) for (k, _), accuracy in accuracies.items()}


def closing_record(subject: Subject, *, baselines: bool = True) -> dict[str, Any]:
    """Probes of the trained encoder, of raw data, and of the same encoder untrained.

    Linear probe with a few labels per class (mean and deviation over ten draws), with all labels,
    and kNN. Every choice is made on training data; the test split is touched once for each figure.

    Args:
      subject: the run's encoder and data.
      baselines: whether to include raw pixels (of images in memory) and the untrained encoder.

    Returns:
      A record: settings, figures by feature, and by class the accuracy of the trained encoder's kNN
      and what was predicted how often.

    Raises:
      UserError: the data has no labels or no test split.
    """
    train, test = labeled_splits(subject.dataset)
    features: dict[str, tuple[Features, Features]] = {}
    if baselines:
        if isinstance(train, Split) and isinstance(test, Split):
            raw = "raw data" if train.channels is None else "raw pixels"
            features[raw] = _raw(train, subject.mesh), _raw(test, subject.mesh)
        untrained = subject.at(subject.init_state())
        features["untrained"] = untrained.represent(train), untrained.represent(test)
    features["trained"] = subject.represent(train), subject.represent(test)
    return {
        "method": type(subject.recipe.method).__name__,
        "data": subject.dataset.name,
        "seed": subject.recipe.seed,
        "step": int(subject.state.step),
        "train_images": train.size,
        "test_images": test.size,
        "features": {name: _probes(subject.classes, *pair) for name, pair in features.items()},
        "by_class": _by_class(subject.classes, *features["trained"]),
    }


def closing_table(record: dict[str, Any]) -> rich.table.Table:
    """The record as a table of percentages."""
    first = next(iter(record["features"].values()))
    title = (
        f"Accuracy in % on {record['test_images']} test images; linear probes by labels per class"
    )
    result = rich.table.Table(
        title=title,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    result.add_column("", no_wrap=True)
    for column in first:
        result.add_column(column, no_wrap=True, justify="right")
    for name, figures in record["features"].items():
        result.add_row(name, *(_cell(value) for value in figures.values()))
    return result


def _raw(split: Split, mesh: Mesh) -> Features:
    """The examples themselves, bytes over 255, one row each; whole tiles on each device."""
    as_float = lambda leaf: leaf.astype(np.float32) / (255 if leaf.dtype == np.uint8 else 1)
    (whole,) = batches(split, size=None, batch=split.size)
    rows = [as_float(leaf).reshape(split.size, -1) for leaf in jax.tree.leaves(whole.data)]
    padding = -split.size % (TILE * mesh.size)
    values = np.pad(np.concatenate(rows, axis=1), [(0, padding), (0, 0)])
    return Features(
        shard_rows(values, mesh), np.pad(whole.labels, (0, padding), constant_values=-1)
    )


def _probes(classes: tuple[str, ...], train: Features, test: Features) -> dict[str, Any]:
    settings: dict[str, Any] = {"classes": len(classes), "seed": SEED}
    fewest = int(np.bincount(train.labels[train.known], minlength=len(classes)).min())
    figures: dict[str, Any] = {}
    for count in (count for count in LABELS if count < fewest):
        probe = few_label_probe(*train, *test, per_class=count, draws=DRAWS, **settings)
        figures[f"{count} label{'s' * (count > 1)}"] = {
            "mean": probe.mean,
            "std": probe.std,
            "accuracies": probe.accuracies,
            "alpha": probe.alpha,
        }
    probe = linear_probe(*train, *test, **settings)
    figures["all"] = {"mean": probe.accuracy, "l2": probe.l2}
    for (k, temperature), accuracy in _knn(classes, train, test).items():
        figures[f"kNN {k}"] = {"mean": accuracy, "k": k, "temperature": temperature}
    return figures


def _by_class(classes: tuple[str, ...], train: Features, test: Features) -> dict[str, Any]:
    """The accuracy of each class of the test images by kNN, and its row of the confusion table."""
    k, temperature = KNN[-1]
    k = min(k, len(train.known))
    predicted = np.asarray(
        knn_predict(*train, test.values, classes=len(classes), k=k, temperature=temperature)
    )[test.known]
    labels = test.labels[test.known]
    names = _distinct(classes)
    rows = {}
    for label in np.unique(labels):
        found, counts = np.unique(predicted[labels == label], return_counts=True)
        rows[names[label]] = {
            "images": int(counts.sum()),
            "accuracy": float(counts[found == label].sum() / counts.sum()),
            "predicted": {names[other]: int(n) for other, n in zip(found, counts, strict=True)},
        }
    return {"k": k, "temperature": temperature, "classes": rows}


def _distinct(classes: tuple[str, ...]) -> list[str]:
    """Displayable names; of equal ones, with their labels."""
    counts = collections.Counter(map(displayable, classes))
    return [
        name if counts[name] == 1 else f"{name} ({label})"
        for label, name in enumerate(map(displayable, classes))
    ]


def _knn(
    classes: tuple[str, ...], train: Features, test: Features
) -> dict[tuple[int, float], float]:
    """Accuracy by (k, temperature); k is at most the number of training images."""
    settings = [(min(k, len(train.known)), temperature) for k, temperature in KNN]
    accuracy = lambda k, temperature: knn_accuracy(
        *train, *test, classes=len(classes), k=k, temperature=temperature
    )
    return {setting: accuracy(*setting) for setting in settings}


def _cell(figure: dict[str, Any]) -> str:
    mean, std = 100 * figure["mean"], figure.get("std")
    return f"{mean:.1f}" if std is None or math.isnan(std) else f"{mean:.1f} ± {100 * std:.1f}"
