"""What a trained encoder is worth: kNN and linear probes on its frozen representations, and what to compare them with."""

import functools
import math
from typing import Any

import jax
import numpy as np
import rich.box
import rich.table

from jaxclr.data import Dataset, Split, Stream
from jaxclr.errors import UserError
from jaxclr.evaluation import few_label_probe, knn_accuracy, linear_probe
from jaxclr.evaluation.images import image_batches
from jaxclr.evaluation.protocols import Features
from jaxclr.steps.scanned import represent_images
from jaxclr.steps.state import State
from jaxclr.training.session import Session

KNN = ((200, 0.1), (20, 0.07))  # (k, temperature): lightly's and solo-learn's settings
LABELS = (1, 5, 10)
DRAWS = 10
SEED = 0  # of label draws and validation splits: the same for every run, so that runs compare

BATCH = 250  # images embedded at once


def represent(session: Session, state: State, split: Split | Stream) -> Features:
    """Representations of labelled images without augmentation, norms by their running statistics.

    They stay on the host, those of a stream too, whose images do not; its damaged images are left out.

    Args:
      session: whose network and preprocessing to use.
      state: whose parameters.
      split: N images.
    """
    recipe = session.recipe
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    embed = jax.jit(functools.partial(represent_images, recipe=recipe))
    # Evaluation runs on one device, of each process the same: it needs no collective, and rows need not divide.
    variables = jax.device_put(jax.device_get(variables), jax.local_devices()[0])
    values, labels = [], []
    for images, some in image_batches(split, size=session.plain_size, batch=BATCH):
        full = images[np.arange(BATCH) % len(images)]  # the last are fewer
        values.append(np.asarray(embed(variables, full))[: len(images)])
        labels.append(some)
    return Features(np.concatenate(values), np.concatenate(labels))


def labelled_splits(dataset: Dataset) -> tuple[Split | Stream, Split | Stream]:
    """Train and test, if both have labels.

    Raises:
      UserError: there is no test split, or no labels.
    """
    if dataset.test is None or not dataset.train.labelled or not dataset.test.labelled:
        raise UserError(
            f"'{dataset.name}' has no labelled test split, so there is nothing to evaluate against. "
            "Give images in class sub-folders, or labels, and a test split or --data.test-fraction."
        )
    return dataset.train, dataset.test


def monitor(session: Session, state: State) -> dict[str, float]:
    """kNN accuracy on the test split, for a look during training; {} without labels."""
    try:
        train, test = labelled_splits(session.dataset)
    except UserError:
        return {}
    features = (represent(session, state, split) for split in (train, test))
    accuracies = _knn(session.dataset, *features)
    return {f"knn_{k}": round(accuracy, 6) for (k, _), accuracy in accuracies.items()}


def evaluate(session: Session, state: State, *, baselines: bool = True) -> dict[str, Any]:
    """Probes of the trained encoder and, to compare with, of raw pixels and of the same encoder untrained.

    Linear probe with a few labels per class (mean and deviation over ten draws), with all labels, and kNN. Every choice
    is made on training data; the test split is touched once for each figure.

    Args:
      session: the run's.
      state: its last state.
      baselines: whether to include raw pixels (of images in memory) and the untrained encoder.

    Returns:
      A record: settings, and figures by feature.

    Raises:
      UserError: the data has no labels or no test split.
    """
    train, test = labelled_splits(session.dataset)
    embedded = lambda s: tuple(represent(session, s, split) for split in (train, test))
    features = {}
    if baselines:
        if isinstance(train, Split):
            features["raw pixels"] = tuple(
                Features(split.examples.reshape(split.size, -1).astype(np.float32) / 255, split.labels)
                for split in (train, test)
            )
        features["untrained"] = embedded(session.init_state())
    features["trained"] = embedded(state)
    return {
        "method": type(session.config.method).__name__,
        "data": session.dataset.name,
        "seed": session.config.seed,
        "step": int(state.step),
        "train_images": train.size,
        "test_images": test.size,
        "features": {name: _probes(session.dataset, *pair) for name, pair in features.items()},
    }


def table(record: dict[str, Any]) -> rich.table.Table:
    """The record as a table of percentages."""
    first = next(iter(record["features"].values()))
    title = f"Accuracy in % on {record['test_images']} test images; linear probes by labels per class"
    result = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    result.add_column("", no_wrap=True)
    for column in first:
        result.add_column(column, no_wrap=True, justify="right")
    for name, figures in record["features"].items():
        result.add_row(name, *(_cell(value) for value in figures.values()))
    return result


def _probes(dataset: Dataset, train: Features, test: Features) -> dict[str, Any]:
    arrays = (*train, *test)
    classes = len(dataset.classes)
    fewest = int(np.bincount(train.labels, minlength=classes).min())
    figures: dict[str, Any] = {}
    for count in (count for count in LABELS if count < fewest):
        probe = few_label_probe(
            *arrays, classes=classes, per_class=count, draws=DRAWS, seed=SEED
        )
        figures[f"{count} label{'s' * (count > 1)}"] = {
            "mean": probe.mean,
            "std": probe.std,
            "accuracies": probe.accuracies,
            "l2": probe.l2,
        }
    probe = linear_probe(*arrays, classes=classes, seed=SEED)
    figures["all"] = {"mean": probe.accuracy, "l2": probe.l2}
    knn = _knn(dataset, train, test)
    for (k, temperature), accuracy in knn.items():
        figures[f"kNN {k}"] = {"mean": accuracy, "k": k, "temperature": temperature}
    return figures


def _knn(dataset: Dataset, train: Features, test: Features) -> dict[tuple[int, float], float]:
    """Accuracy by (k, temperature); k is at most the number of training images."""
    arrays = (*train, *test)
    settings = [(min(k, len(train.values)), temperature) for k, temperature in KNN]
    return {
        (k, temperature): knn_accuracy(
            *arrays, classes=len(dataset.classes), k=k, temperature=temperature
        )
        for k, temperature in settings
    }


def _cell(figure: dict[str, Any]) -> str:
    mean, std = 100 * figure["mean"], figure.get("std")
    return f"{mean:.1f}" if std is None or math.isnan(std) else f"{mean:.1f} ± {100 * std:.1f}"
