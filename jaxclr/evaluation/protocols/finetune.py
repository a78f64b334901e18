"""Fine-tuning on all labels, or on a share of them."""

import dataclasses
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval, MinLen

from jaxclr.evaluation.protocols.base import Result, Subject
from jaxclr.evaluation.protocols.tuning import FineTuning, checked_labels, tune


@dataclasses.dataclass(frozen=True)
class FineTune(FineTuning):
    """The encoder fine-tuned on all labels, with a linear head."""

    epochs: Annotated[int, Ge(1)] = 30
    """Passes over the training images."""

    def run(self, subject: Subject, seed: int) -> Result:
        labels = checked_labels(subject)
        accuracy, chosen = tune(subject, np.arange(len(labels)), labels, self, seed=seed)
        return Result({"accuracy": (accuracy,)}, {"accuracy": chosen})


@dataclasses.dataclass(frozen=True)
class Semi(FineTuning):
    """The encoder fine-tuned on a small share of the labels, with a linear head (arXiv:2002.05709, section 6)."""

    shares: Annotated[tuple[Annotated[float, Interval(gt=0, le=1)], ...], MinLen(1)] = (0.01, 0.1)
    """Shares of the labels, drawn from every class alike, one of each at least."""

    def run(self, subject: Subject, seed: int) -> Result:
        labels = checked_labels(subject)
        figures, chosen = {}, {}
        for share in self.shares:
            rows = draw_share(labels, share, seed)
            name = f"{100 * share:g}% of labels"
            accuracy, chosen[name] = tune(subject, rows, labels[rows], self, seed=seed)
            figures[name] = (accuracy,)
        return Result(figures, chosen)


def draw_share(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Places of a share of the labels of each class, rounded, at least one, in order."""
    generator = np.random.default_rng(seed)
    members = (np.flatnonzero(labels == label) for label in np.unique(labels))
    drawn = [generator.permutation(rows)[: max(1, round(share * len(rows)))] for rows in members]
    return np.sort(np.concatenate(drawn))
