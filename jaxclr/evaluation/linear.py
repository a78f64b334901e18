"""A linear classifier on frozen features: multinomial logistic regression by L-BFGS."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_features, check_pair

Array = jax.Array

# Strongest first: each fit starts from the one before.
L2_GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
HELD_OUT = 0.2

CHOOSING, FINAL = 1e-4, 1e-5  # tolerances: enough to rank the values of l2, and for the test rows
_ROWS = 4096  # features on the device at a time


class LinearFit(NamedTuple):
    """Weights [D, C] and bias [C] of a linear classifier."""

    weights: np.ndarray | Array
    bias: np.ndarray | Array


class Scale(NamedTuple):
    """Mean and standard deviation of each feature, float32 [D]."""

    mean: np.ndarray
    std: np.ndarray


class LinearProbe(NamedTuple):
    """Test accuracy, the l2 that was chosen, and the held-out cross-entropy of every l2."""

    accuracy: float
    l2: float
    grid: tuple[float, ...]
    validation: tuple[float, ...]


def linear_probe(
    train_x: np.ndarray | Array,
    train_y: np.ndarray | Array,
    test_x: np.ndarray | Array,
    test_y: np.ndarray | Array,
    *,
    classes: int,
    seed: int,
    grid: tuple[float, ...] = L2_GRID,
    held_out: float = HELD_OUT,
) -> LinearProbe:
    """Logistic regression on standardized features, l2 from a grid.

    Each l2 is fitted on the training rows that are not held out. The one with the lowest
    cross-entropy on the held-out rows (of equals, the strongest) is refitted on all training rows,
    and that fit sees the test rows, once. Of one l2 nothing is held out.

    Features stay on the host and reach the device a block of rows at a time.

    Args:
      train_x: features, [N, D].
      train_y: their labels, [N], integers from 0 to classes - 1.
      test_x: features, [M, D].
      test_y: their labels, [M].
      classes: number of classes.
      seed: of the held-out rows, which are the same for every feature set.
      grid: values of l2.
      held_out: share of the training rows on which l2 is chosen.

    Returns:
      Accuracy in [0, 1], the l2 chosen, the grid from strongest to weakest, and its held-out
      cross-entropies.

    Raises:
      UserError: a label is out of range, or there are fewer than two training rows.
      ValueError: shapes or types are wrong.
    """
    train_y, test_y = check_pair(train_x, train_y, test_x, test_y, classes)
    count = len(train_y)
    if count < 2:
        raise UserError("A linear probe needs at least 2 training rows, got 1.")
    grid = tuple(sorted(grid, reverse=True))
    train_x = np.asarray(train_x)
    scale = feature_scale(train_x)
    fit = functools.partial(fit_linear, train_x, train_y, classes, scale=scale)

    # Held-out rows have weight 0, so that no features are copied.
    rows = np.random.default_rng(seed).permutation(count)
    outside = np.zeros(count, np.float32)
    outside[rows[: min(max(1, round(count * held_out)), count - 1)]] = 1
    best, start, validation = 0, None, []
    if len(grid) > 1:
        fits = []
        for l2 in grid:
            start = fit(l2, sample_weight=1 - outside, start=start, tolerance=CHOOSING)
            fits.append(start)
            validation.append(_evaluate(start, train_x, train_y, outside, scale)[0])
        best = int(np.argmin(validation))
        start = fits[best]
    final = fit(grid[best], start=start, tolerance=FINAL)
    everything = np.ones(len(test_y), np.float32)
    _, accuracy = _evaluate(final, np.asarray(test_x), test_y, everything, scale)
    return LinearProbe(accuracy, grid[best], grid, tuple(validation))


def fit_linear(
    x: np.ndarray | Array,
    y: np.ndarray | Array,
    classes: int,
    l2: float,
    *,
    sample_weight: np.ndarray | Array | None = None,
    scale: Scale | None = None,
    start: LinearFit | None = None,
    tolerance: float = 1e-7,
    max_iterations: int = 500,
) -> LinearFit:
    r"""Minimizes the mean cross-entropy with a ridge on the weights; the bias is free.

    .. math:: \frac{\sum_i w_i \, \mathrm{CE}(W^\top x_i + b, y_i)}{\sum_i w_i}
              + \frac{\lambda}{2} \|W\|^2

    With unit weights this is scikit-learn's LogisticRegression(C=1 / (l2 * n)). Value and gradient
    are sums over blocks of rows, so that features may stay on the host; beside them this takes
    O(D C) memory.

    Args:
      x: features, [n, D].
      y: labels, [n], integers from 0 to classes - 1.
      classes: number of classes, C.
      l2: ridge, lambda; not negative.
      sample_weight: [n], not negative, not all zero; None: all equal.
      scale: the features are standardized by it, a block at a time, for speed and for l2 to mean
        the same whatever their scale; None: they are taken as they are.
      start: where to start from, such as the fit of a neighboring l2; None: zeros.
      tolerance: stops once no entry of the gradient is larger.
      max_iterations: stops then in any case, or when a step no longer changes anything in float32.

    Returns:
      Weights [D, C] and bias [C], float32, for standardized features.

    Raises:
      ValueError: shapes do not match.

    References:
      Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989.
    """
    check_features("x", x)
    count, width = x.shape
    if y.shape != (count,):
        raise ValueError(f"y must be [{count}], one per row of x, got shape {y.shape}.")
    weights = np.ones(count) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weights.shape != (count,):
        raise ValueError(f"sample_weight must be [{count}], got shape {weights.shape}.")
    weights = (weights / weights.sum()).astype(np.float32)

    def unflatten(flat: np.ndarray) -> LinearFit:
        flat = flat.astype(np.float32)
        return LinearFit(flat[:-classes].reshape(width, classes), flat[-classes:])

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _sum_blocks(_losses, unflatten(flat), x, y, weights, scale)
        ridge = l2 * flat
        ridge[-classes:] = 0
        return float(value) + 0.5 * float(flat @ ridge), _flatten(gradient) + ridge

    first = np.zeros((width + 1) * classes) if start is None else _flatten(start)
    options = {"maxiter": max_iterations, "gtol": tolerance, "ftol": 1e-12}
    found = scipy.optimize.minimize(objective, first, jac=True, method="L-BFGS-B", options=options)
    return unflatten(found.x)


def linear_logits(fit: LinearFit, x: Array) -> Array:
    """Logits [n, C] of features [n, D], in float32."""
    x = x.astype(jnp.float32)
    return jnp.matmul(x, fit.weights, precision=jax.lax.Precision.HIGHEST) + fit.bias[None]


def feature_scale(values: np.ndarray) -> Scale:
    """Of features [N, D], which are not copied; a constant feature has a deviation of 1."""
    mean = values.mean(axis=0, dtype=np.float64)
    blocks = np.array_split(values, -(-len(values) // _ROWS))
    std = np.sqrt(sum(((block - mean) ** 2).sum(axis=0) for block in blocks) / len(values))
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)
    return Scale(mean.astype(np.float32), std.astype(np.float32))


def _flatten(fit: LinearFit) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in fit]).astype(np.float64)


def _sum_blocks(function, fit, x, y, weights, scale):
    """Sum of a function over blocks of rows, on the host."""
    total = None
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        total = function(total, fit, x[rows], y[rows], weights[rows], scale)
    return jax.device_get(total)


def _evaluate(fit, x, y, weights, scale) -> tuple[float, float]:
    """Weighted means of cross-entropy and accuracy."""
    losses, hits = _sum_blocks(_scores, fit, x, y, weights, scale)
    return float(losses) / float(weights.sum()), float(hits) / float(weights.sum())


def _cross_entropy(fit: LinearFit, x: Array, y: Array, scale: Scale | None) -> tuple[Array, Array]:
    """Losses and logits of rows."""
    if scale is not None:
        x = (x.astype(jnp.float32) - scale.mean[None]) / scale.std[None]
    logits = linear_logits(fit, x)
    # Relative to the logit of the row's class, small losses keep their digits.
    own = jax.nn.one_hot(y, logits.shape[1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(own, -1e30, logits), axis=1)
    return jax.nn.softplus(others - jnp.sum(jnp.where(own, logits, 0), axis=1)), logits


@jax.jit
def _losses(total, fit, x, y, weights, scale):
    """Adds the weighted sum of losses, and its gradient."""

    def loss(fit):
        losses, _ = _cross_entropy(fit, x, y, scale)
        return jnp.dot(weights, losses, precision="highest")

    some = jax.value_and_grad(loss)(fit)
    return some if total is None else jax.tree.map(jnp.add, total, some)


@jax.jit
def _scores(total, fit, x, y, weights, scale):
    """Adds the weighted sums of losses and of hits."""
    losses, logits = _cross_entropy(fit, x, y, scale)
    some = jnp.dot(weights, losses), jnp.dot(weights, jnp.argmax(logits, axis=1) == y)
    return some if total is None else jax.tree.map(jnp.add, total, some)
