"""Nearest neighbours."""

import dataclasses
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from jaxclr.evaluation.knn import check_neighbours, knn_accuracy
from jaxclr.evaluation.protocols.base import Protocol, Result, Subject


@dataclasses.dataclass(frozen=True)
class Knn(Protocol):
    """Weighted k nearest neighbours by cosine, of frozen representations (arXiv:1805.01978)."""

    is_random: ClassVar[bool] = False

    k: Annotated[int, Ge(1)] = 20
    """Neighbours."""

    temperature: Annotated[float, Gt(0)] = 0.07
    """Of their weights, exp(cosine / temperature)."""

    def run(self, subject: Subject, seed: int) -> Result:
        check_neighbours(self.k, subject.train.size)
        train, test = subject.features
        accuracy = knn_accuracy(
            *train, *test, classes=len(subject.classes), k=self.k, temperature=self.temperature
        )
        return Result({"accuracy": (accuracy,)})
