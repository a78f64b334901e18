"""Few-label probe: ridge regression in closed form on several draws of labels."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_pair
from jaxclr.evaluation.features import host_rows, mesh_of, shard_rows
from jaxclr.evaluation.linear import feature_scale

Array = jax.Array

ALPHAS = (1e4, 1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2)
"""The values of alpha that `few_label_probe` tries, strongest first."""
VALIDATION_ROWS = 2000


class FewLabelProbe(NamedTuple):
    """Mean and deviation (n - 1) of the test accuracies of the draws, and the alpha they share."""

    mean: float
    std: float
    accuracies: tuple[float, ...]
    alpha: float
    grid: tuple[float, ...]
    validation: tuple[float, ...]


def few_label_probe(
    train_x: np.ndarray | Array,
    train_y: np.ndarray | Array,
    test_x: np.ndarray | Array,
    test_y: np.ndarray | Array,
    *,
    classes: int,
    per_class: int,
    draws: int = 10,
    seed: int,
    grid: tuple[float, ...] = ALPHAS,
    names: Sequence[str] = (),
) -> FewLabelProbe:
    """Ridge regression of the classes' indicators on several draws of a few labels per class.

    All features are standardized by the whole training set, which takes no labels. Every alpha is
    fitted to every draw and evaluated on up to 2,000 training rows outside that draw; the alpha
    with the best mean accuracy over draws (of equals, the strongest) is used for all, and only its
    fits see the test rows. Draws and validation rows depend on labels and seed alone: the same for
    all features. One decomposition of a draw's rows serves all alphas.

    Args:
      train_x: features, [N, D].
      train_y: their labels, [N], integers from 0 to classes - 1; -1 leaves a row out.
      test_x: features, [M, D].
      test_y: their labels, [M], likewise.
      classes: number of classes.
      per_class: labels per class and draw.
      draws: number of draws.
      seed: of the draws.
      grid: values of alpha, as scikit-learn's Ridge has it.
      names: of the classes, for messages; empty: their labels.

    Returns:
      Mean and standard deviation of the test accuracy over draws, each draw's accuracy, the alpha
      chosen, the grid from strongest to weakest and its mean validation accuracies.

    Raises:
      UserError: a class has too few rows, draws leave none to choose alpha on, or a label is out of
        range.
      ValueError: shapes, types or hyper-parameters are wrong.
    """
    train_y, test_y = check_pair(train_x, train_y, test_x, test_y, classes)
    if per_class < 1 or draws < 1:
        raise ValueError(f"per_class and draws must be positive, got {per_class} and {draws}.")
    grid = tuple(sorted(grid, reverse=True))
    known = np.flatnonzero(train_y >= 0)
    mean, std = feature_scale(train_x, (train_y >= 0).astype(np.float32))
    scaled = lambda rows: (host_rows(train_x, rows).astype(np.float32) - mean) / std

    ridges, shares = [], []
    for draw in draw_few(train_y[known], classes, per_class, draws, seed, names):
        labeled, held_out = (known[rows] for rows in draw)
        ridge = jax.device_get(decompose(scaled(labeled), train_y[labeled], classes=classes))
        ridges.append(ridge)
        shares.append(_hits(ridge, scaled(held_out), train_y[held_out], grid))
    validation = np.asarray(shares, np.float64).mean(axis=0)
    alpha = grid[int(np.argmax(validation))]
    if mesh := mesh_of(test_x):
        test_y = shard_rows(test_y, mesh)
    test_x = _standardize(test_x, mean, std)
    judged = (np.asarray(_hits(ridge, test_x, test_y, (alpha,))) for ridge in ridges)
    accuracies = [float(shares[0]) for shares in judged]
    return FewLabelProbe(
        mean=float(np.mean(accuracies)),
        std=float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0,
        accuracies=tuple(accuracies),
        alpha=alpha,
        grid=grid,
        validation=tuple(validation.tolist()),
    )


def draw_few(
    labels: np.ndarray,
    classes: int,
    per_class: int,
    draws: int,
    seed: int,
    names: Sequence[str] = (),
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows with labels, per_class of each class, and rows to validate on, for each draw."""
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < per_class:
        poorest = int(np.argmin(counts))
        name = f"'{names[poorest]}'" if names else poorest
        raise UserError(
            f"{per_class} labels per class are asked for, but class {name} has "
            f"{counts[poorest]} training rows. Ask for {counts[poorest]} or fewer."
            if counts[poorest]
            else f"Class {name} has no training rows; {per_class} per class are asked for."
        )
    if len(labels) == per_class * classes:
        raise UserError(
            f"{per_class} labels per class are all {len(labels)} training rows; none is left to "
            "choose alpha on. Ask for fewer."
        )
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    result = []
    for _ in range(draws):
        drawn = [generator.choice(rows, per_class, replace=False) for rows in members]
        labeled = np.sort(np.concatenate(drawn))
        rest = np.setdiff1d(np.arange(len(labels)), labeled)
        result.append((labeled, np.sort(generator.permutation(rest)[:VALIDATION_ROWS])))
    return result


class Ridge(NamedTuple):
    """A ridge regression before its alpha is known: the decomposed rows, and the rotated targets.

    Attributes:
      mean: of the rows, [D].
      target_mean: of the targets, [C].
      basis: right singular vectors of the centered rows, [r, D], r = min(n, D).
      values: singular values, [r].
      targets: centered targets in the basis of the left singular vectors, [r, C].
    """

    mean: Array
    target_mean: Array
    basis: Array
    values: Array
    targets: Array


def decompose(x: np.ndarray | Array, y: np.ndarray | Array, *, classes: int) -> Ridge:
    """The decomposition of rows [n, D] that serves every alpha: O(n D min(n, D))."""
    return _decompose(x, jax.nn.one_hot(y, classes))


@jax.jit
def _decompose(x: Array, targets: Array) -> Ridge:
    mean, target_mean = jnp.mean(x, axis=0), jnp.mean(targets, axis=0)
    left, values, basis = jnp.linalg.svd(x - mean[None], full_matrices=False)
    rotated = jnp.matmul(left.T, targets - target_mean[None], precision="highest")
    return Ridge(mean, target_mean, basis, values, rotated)


@jax.jit
def scores(ridge: Ridge, x: np.ndarray | Array, alpha: float | Array) -> Array:
    r"""Scores [m, C] of rows [m, D], from the minimum of squared errors with a free bias.

    .. math:: \min_{W, b} \|X W + b - Y\|^2 + \alpha \|W\|^2, \qquad
              W = V \frac{\sigma}{\sigma^2 + \alpha} U^\top (Y - \bar y),
              \quad X - \bar x = U \sigma V^\top
    """
    coordinates = jnp.matmul(x - ridge.mean[None], ridge.basis.T, precision="highest")
    shrunk = ridge.targets * (ridge.values / (ridge.values**2 + alpha))[:, None]
    return jnp.matmul(coordinates, shrunk, precision="highest") + ridge.target_mean[None]


@jax.jit
def _hits(ridge: Ridge, x: Array, y: Array, alphas: tuple[float, ...]) -> Array:
    """Share of labeled rows whose highest score is that of their label, for each alpha."""
    right = [jnp.argmax(scores(ridge, x, alpha), axis=1) == y for alpha in alphas]
    return jnp.sum(jnp.stack(right), axis=1).astype(jnp.float32) / jnp.sum(y >= 0)


@jax.jit
def _standardize(x: Array, mean: Array, std: Array) -> Array:
    return (x.astype(jnp.float32) - mean[None]) / std[None]
