"""A few labels per class, and a ridge regression in closed form."""

import dataclasses
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, MinLen

from jaxclr.evaluation.probe import draw_few
from jaxclr.evaluation.protocols.base import Protocol, Result, Subject, moments

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class FewShot(Protocol):
    """Ridge regression, in closed form, on frozen, standardised representations of a few labelled images per class."""

    per_class: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (1, 5, 10)
    """Labels per class."""

    draws: Annotated[int, Ge(1)] = 10
    """Draws of labels for each seed."""

    strengths: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)] = tuple(
        10.0**power for power in range(-2, 5)
    )
    """Ridges, scikit-learn's alpha; the best on up to 2,000 training images outside the draws is taken for all of them."""

    def run(self, subject: Subject, seed: int) -> Result:
        train, test = subject.features
        mean, std = moments(train.values)
        scaled = lambda values: (values - mean) / std
        test_x = scaled(test.values)
        classes, strengths = len(subject.classes), sorted(self.strengths, reverse=True)
        figures, chosen = {}, {}
        for count in self.per_class:
            validation, ridges = [], []
            for labelled, held_out in draw_few(train.labels, classes, count, self.draws, seed):
                ridge = decompose(scaled(train.values[labelled]), train.labels[labelled], classes=classes)
                rest = scaled(train.values[held_out]), train.labels[held_out]
                validation.append([hits(ridge, *rest, alpha).item() for alpha in strengths])
                ridges.append(ridge)
            best = int(np.argmax(np.mean(validation, axis=0)))
            name = f"{count} label{'s' * (count > 1)}"
            figures[name] = tuple(hits(ridge, test_x, test.labels, strengths[best]).item() for ridge in ridges)
            chosen[name] = {"ridge": strengths[best]}
        return Result(figures, chosen)


class Ridge(NamedTuple):
    """A ridge regression before its strength is known: the decomposed rows, and the targets turned likewise.

    Attributes:
      mean: of the rows, [D].
      target_mean: of the targets, [C].
      basis: right singular vectors of the centred rows, [r, D], r = min(n, D).
      values: singular values, [r].
      targets: centred targets in the basis of the left singular vectors, [r, C].
    """

    mean: Array
    target_mean: Array
    basis: Array
    values: Array
    targets: Array


@jax.jit
def _decompose(x: Array, targets: Array) -> Ridge:
    mean, target_mean = jnp.mean(x, axis=0), jnp.mean(targets, axis=0)
    left, values, basis = jnp.linalg.svd(x - mean[None], full_matrices=False)
    turned = jnp.matmul(left.T, targets - target_mean[None], precision="highest")
    return Ridge(mean, target_mean, basis, values, turned)


def decompose(x: Array, y: Array, *, classes: int) -> Ridge:
    """What all ridges of rows [n, D] and labels [n] share: O(n D min(n, D))."""
    return _decompose(x, jax.nn.one_hot(y, classes))


@jax.jit
def scores(ridge: Ridge, x: Array, alpha: float | Array) -> Array:
    r"""Scores [m, C] of rows [m, D], from the minimum of squared errors with a free bias.

    .. math:: \min_{W, b} \|X W + b - Y\|^2 + \alpha \|W\|^2, \qquad
              W = V \frac{\sigma}{\sigma^2 + \alpha} U^\top (Y - \bar y), \quad X - \bar x = U \sigma V^\top
    """
    shrunk = ridge.targets * (ridge.values / (ridge.values**2 + alpha))[:, None]
    weights = jnp.matmul(ridge.basis.T, shrunk, precision="highest")
    return jnp.matmul(x - ridge.mean[None], weights, precision="highest") + ridge.target_mean[None]


@jax.jit
def hits(ridge: Ridge, x: Array, y: Array, alpha: float | Array) -> Array:
    """Share of rows whose highest score is that of their label."""
    return jnp.mean(jnp.argmax(scores(ridge, x, alpha), axis=1) == y, dtype=jnp.float32)
