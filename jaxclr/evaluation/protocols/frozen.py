"""Protocols on frozen representations and their labels."""

import dataclasses
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Interval, MinLen

from jaxclr.evaluation.few_labels import ALPHAS, few_label_probe
from jaxclr.evaluation.knn import check_neighbors, knn_accuracy
from jaxclr.evaluation.linear import HELD_OUT, L2_GRID, linear_probe
from jaxclr.evaluation.protocols.protocol import Protocol, Result
from jaxclr.evaluation.subject import Subject


@dataclasses.dataclass(frozen=True)
class Knn(Protocol):
    """Weighted k nearest neighbors by cosine, of frozen representations (arXiv:1805.01978)."""

    is_random: ClassVar[bool] = False

    k: Annotated[int, Ge(1)] = 20
    """Neighbors."""

    temperature: Annotated[float, Gt(0)] = 0.07
    """Of their weights, exp(cosine / temperature)."""

    def run(self, subject: Subject, seed: int) -> Result:
        check_neighbors(self.k, subject.train.size)
        train, test = subject.sharded_features
        accuracy = knn_accuracy(
            *train, *test, classes=len(subject.classes), k=self.k, temperature=self.temperature
        )
        return Result({"accuracy": (accuracy,)})


@dataclasses.dataclass(frozen=True)
class Linear(Protocol):
    """Logistic regression on frozen, standardized representations with all labels, by L-BFGS."""

    l2: Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(1)] = L2_GRID
    """Ridges: half of it times the squared weights is added to the mean loss, as 1 / (C n) in
    scikit-learn. The one with the lowest cross-entropy on held-out training images is taken."""

    held_out: Annotated[float, Interval(gt=0, lt=1)] = HELD_OUT
    """Share of the training images on which l2 is chosen."""

    def run(self, subject: Subject, seed: int) -> Result:
        train, test = subject.sharded_features
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

    per_class: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 5, 10)
    """Labels per class."""

    draws: Annotated[int, Ge(1)] = 10
    """Draws of labels for each seed."""

    alphas: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = ALPHAS
    """Ridges, as in scikit-learn. The one with the best mean accuracy on up to 2,000 training
    images outside each draw is taken for all draws."""

    def run(self, subject: Subject, seed: int) -> Result:
        train, test = subject.sharded_features
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
                names=subject.classes,
            )
            figures[name], chosen[name] = probe.accuracies, {"alpha": probe.alpha}
        return Result(figures, chosen)
