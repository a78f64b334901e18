"""Nearest neighbours."""

import dataclasses
from typing import ClassVar

from jaxclr.evaluation.knn import check_neighbours, knn_accuracy
from jaxclr.evaluation.protocols.base import Protocol, Result, Subject, require


@dataclasses.dataclass(frozen=True)
class Knn(Protocol):
    """Weighted k nearest neighbours by cosine, of frozen representations (arXiv:1805.01978)."""

    is_random: ClassVar[bool] = False

    k: int = 20
    """Neighbours."""

    temperature: float = 0.07
    """Of their weights, exp(cosine / temperature)."""

    def __post_init__(self) -> None:
        require("k", self.k, self.k >= 1, "at least 1")
        require("temperature", self.temperature, self.temperature > 0, "more than zero")

    def run(self, subject: Subject, seed: int) -> Result:
        check_neighbours(self.k, subject.train.size)
        train, test = subject.features
        accuracy = knn_accuracy(
            *train, *test, classes=len(subject.classes), k=self.k, temperature=self.temperature
        )
        return Result({"accuracy": (accuracy,)})
