"""Protocols on frozen representations and their labels."""

import dataclasses
from typing import ClassVar

from jaxclr.evaluation.few_labels import ALPHAS, few_label_probe
from jaxclr.evaluation.knn import check_neighbors, knn_accuracy
from jaxclr.evaluation.linear import HELD_OUT, L2_GRID, linear_probe
from jaxclr.evaluation.protocols.protocol import Protocol, Result, require
from jaxclr.evaluation.subject import Subject


@dataclasses.dataclass(frozen=True)
class Knn(Protocol):
    """Weighted k nearest neighbors by cosine, of frozen representations (arXiv:1805.01978)."""

    is_random: ClassVar[bool] = False

    k: int = 20
    """Neighbors."""

    temperature: float = 0.07
    """Of their weights, exp(cosine / temperature)."""

    def __post_init__(self) -> None:
        require("k", self.k, self.k >= 1, "at least 1")
        require("temperature", self.temperature, self.temperature > 0, "more than zero")

    def run(self, subject: Subject, seed: int) -> Result:
        check_neighbors(self.k, subject.train.size)
        train, test = subject.features
        accuracy = knn_accuracy(
            *train, *test, classes=len(subject.classes), k=self.k, temperature=self.temperature
        )
        return Result({"accuracy": (accuracy,)})


@dataclasses.dataclass(frozen=True)
class Linear(Protocol):
    """Logistic regression on frozen, standardized representations with all labels, by L-BFGS."""

    l2: tuple[float, ...] = L2_GRID
    """Ridges: half of it times the squared weights is added to the mean loss, as 1 / (C n) in
    scikit-learn. The one with the lowest cross-entropy on held-out training images is taken."""

    held_out: float = HELD_OUT
    """Share of the training images on which l2 is chosen."""

    def __post_init__(self) -> None:
        require(
            "l2",
            self.l2,
            len(self.l2) > 0 and min(self.l2) >= 0,
            "at least one number, none below zero",
        )
        require("held_out", self.held_out, 0 < self.held_out < 1, "between 0 and 1")

    def run(self, subject: Subject, seed: int) -> Result:
        train, test = subject.features
        probe = linear_probe(
            *train,
            *test,
            classes=len(subject.classes),
            seed=seed,
            grid=self.l2,
            held_out=self.held_out,
        )
        return Result({"accuracy": (probe.accuracy,)}, {"accuracy": {"l2": probe.l2}})


@dataclasses.dataclass(frozen=True)
class Transfer(Linear):
    """The linear protocol on another data set, which --data.source names."""

    elsewhere: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class FewShot(Protocol):
    """Ridge regression on frozen, standardized representations, a few labels per class."""

    per_class: tuple[int, ...] = (1, 5, 10)
    """Labels per class."""

    draws: int = 10
    """Draws of labels for each seed."""

    alphas: tuple[float, ...] = ALPHAS
    """Ridges, as in scikit-learn. The one with the best mean accuracy on up to 2,000 training
    images outside each draw is taken for all draws."""

    def __post_init__(self) -> None:
        fewest = min(self.per_class, default=0)
        require("per_class", self.per_class, fewest >= 1, "at least 1")
        require("draws", self.draws, self.draws >= 1, "at least 1")
        require("alphas", self.alphas, min(self.alphas, default=0) > 0, "above zero")

    def run(self, subject: Subject, seed: int) -> Result:
        train, test = subject.features
        figures, chosen = {}, {}
        for count in self.per_class:
            name = f"{count} label{'s' * (count > 1)}"
            probe = few_label_probe(
                *train,
                *test,
                classes=len(subject.classes),
                per_class=count,
                draws=self.draws,
                seed=seed,
                grid=self.alphas,
            )
            figures[name], chosen[name] = probe.accuracies, {"alpha": probe.alpha}
        return Result(figures, chosen)
