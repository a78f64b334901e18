"""A linear classifier on frozen features: multinomial logistic regression by L-BFGS."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxclr.errors import UserError
from jaxclr.evaluation import sums
from jaxclr.evaluation.feature_checks import check_features, check_pair
from jaxclr.evaluation.features import mesh_of, shard_rows
from jaxclr.processes import runtime

Array = jax.Array

L2_GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""The values of l2 that `linear_probe` tries; each fit starts from the one before."""

HELD_OUT = 0.2

CHOOSING, FINAL = 1e-4, 1e-5  # tolerances: enough to rank the values of l2, and for the test rows
_ROWS = 16 * sums.TILE  # features of the host on the device at a time


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

    Features of the host stay there and reach the device a block of rows at a time. Those that are
    sharded by rows over devices stay on the devices, which sum over their own rows.

    Args:
      train_x: features, [N, D].
      train_y: their labels, [N], integers from 0 to classes - 1; -1 leaves a row out.
      test_x: features, [M, D].
      test_y: their labels, [M], likewise.
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
    known = np.flatnonzero(train_y >= 0)
    count = len(known)
    if count < 2:
        raise UserError("A linear probe needs at least 2 training rows, got 1.")
    grid = tuple(sorted(grid, reverse=True))
    labeled = (train_y >= 0).astype(np.float32)
    scale = feature_scale(train_x, labeled)
    fit = functools.partial(fit_linear, train_x, train_y, classes, scale=scale)

    # Rows that are left out have weight 0, so that no features are copied.
    rows = known[np.random.default_rng(seed).permutation(count)]
    outside = np.zeros(len(train_y), np.float32)
    outside[rows[: min(max(1, round(count * held_out)), count - 1)]] = 1
    best, start, validation = 0, None, []
    if len(grid) > 1:
        fits = []
        for l2 in grid:
            start = fit(l2, sample_weight=labeled - outside, start=start, tolerance=CHOOSING)
            fits.append(start)
            validation.append(_evaluate(start, train_x, train_y, outside, scale)[0])
        best = int(np.argmin(validation))
        start = fits[best]
    final = fit(grid[best], sample_weight=labeled, start=start, tolerance=FINAL)
    _, accuracy = _evaluate(final, test_x, test_y, (test_y >= 0).astype(np.float32), scale)
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
    are sums over blocks of rows, so that features may stay on the host, or sharded over devices;
    beside them this takes O(D C) memory. They round alike on any number of devices. Of several
    processes, the first one minimizes.

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

    sum_rows = _row_sums(_losses, x, y, weights, scale)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        (value,), gradient = sum_rows(unflatten(flat))
        ridge = l2 * flat
        ridge[-classes:] = 0
        return value + 0.5 * float(flat @ ridge), _flatten(gradient) + ridge

    first = np.zeros((width + 1) * classes) if start is None else _flatten(start)
    options = {"maxiter": max_iterations, "gtol": tolerance, "ftol": 1e-12}
    return unflatten(_minimize(objective, first, options))


def _minimize(
    objective: Callable[[np.ndarray], tuple[float, np.ndarray]],
    first: np.ndarray,
    options: dict[str, Any],
) -> np.ndarray:
    """The minimum as the first process finds it; the others evaluate where it does."""
    share = lambda flat, last: runtime.from_first(np.append(flat, last).astype(np.float32))

    def shared(flat: np.ndarray) -> tuple[float, np.ndarray]:
        if not runtime.is_single():
            share(flat, 0)
        return objective(flat)

    if runtime.is_first():
        found = scipy.optimize.minimize(
            shared, first, jac=True, method="L-BFGS-B", options=options
        ).x
        return found if runtime.is_single() else share(found, 1)[:-1]
    while not (message := share(first, 0))[-1]:
        objective(message[:-1])
    return message[:-1]


def linear_logits(fit: LinearFit, x: Array) -> Array:
    """Logits [n, C] of features [n, D], in float32."""
    x = x.astype(jnp.float32)
    return jnp.matmul(x, fit.weights, precision=jax.lax.Precision.HIGHEST) + fit.bias[None]


def feature_scale(values: np.ndarray | Array, weights: np.ndarray | None = None) -> Scale:
    """Of features [N, D]; a constant feature has a deviation of 1.

    Args:
      values: an array of the host, or sharded by rows over devices.
      weights: [N], 0 for rows that are left out, otherwise 1; None: 1 for all.
    """
    if mesh_of(values) is None:
        values = np.asarray(values)
        if weights is not None and not weights.all():
            values = values[weights > 0]
        mean = values.mean(axis=0, dtype=np.float64)
        blocks = np.array_split(values, -(-len(values) // _ROWS))
        square = sum(((block - mean) ** 2).sum(axis=0) for block in blocks) / len(values)
    else:
        weights = np.ones(len(values), np.float32) if weights is None else weights
        moment = lambda function, of: _row_sums(function, values, None, weights, None)(of)[1]
        mean = moment(_first_moments, None).astype(np.float64) / weights.sum()
        square = moment(_second_moments, mean.astype(np.float32)) / weights.sum()
    std = np.sqrt(np.asarray(square, np.float64))
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)
    return Scale(mean.astype(np.float32), std.astype(np.float32))


def _flatten(fit: LinearFit) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in fit]).astype(np.float64)


def _row_sums(function, x, y, weights, scale) -> Callable[[Any], tuple[list[float], Any]]:
    """Scalars and arrays summed over rows, on the host, by what a function takes beside the rows.

    They are the same for features of the host and on any number of devices.
    """
    mesh = mesh_of(x)
    if mesh is not None:
        x, weights = shard_rows(x, mesh), shard_rows(weights, mesh)
        y = None if y is None else shard_rows(y, mesh, fill=-1)

    def summed(of: Any) -> tuple[list[float], Any]:
        if mesh is not None:
            scalars, arrays = jax.device_get(
                _sum_shards(function, of, x, y, weights, scale, mesh=mesh)
            )
            return [math.fsum(leaf) for leaf in scalars], arrays
        parts, total = [], None
        for start in range(0, len(x), _ROWS):
            rows = slice(start, start + _ROWS)
            some = function(of, x[rows], y if y is None else y[rows], weights[rows], scale)
            total = some.arrays if total is None else _add_trees(total, some.arrays)
            parts.append(some.scalars)
        scalars = map(np.concatenate, zip(*jax.device_get(parts), strict=True))
        arrays = sums.finish(sums.Sums((), total), None).arrays
        return [math.fsum(leaf) for leaf in scalars], jax.device_get(arrays)

    return summed


_add_trees = jax.jit(sums.add_trees)


@functools.partial(jax.jit, static_argnums=0, static_argnames="mesh")
def _sum_shards(function, of, x, y, weights, scale, *, mesh: Mesh):
    (axis,) = mesh.axis_names
    of_device = lambda *arguments: sums.finish(function(*arguments), axis)
    specs = P(), P(axis), P(axis), P(axis), P()
    mapped = jax.shard_map(of_device, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)
    return mapped(of, x, y, weights, scale)


def _evaluate(fit, x, y, weights, scale) -> tuple[float, float]:
    """Weighted means of cross-entropy and accuracy."""
    (losses, hits), _ = _row_sums(_scores, x, y, weights, scale)(fit)
    return losses / float(weights.sum()), hits / float(weights.sum())


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
def _losses(fit, x, y, weights, scale):
    """The weighted sum of losses, and its gradient."""

    def of_tile(rows):
        x, y, weights = rows

        def loss(fit):
            losses, _ = _cross_entropy(fit, x, y, scale)
            return jnp.dot(weights, losses, precision="highest")

        value, gradient = jax.value_and_grad(loss)(LinearFit(*fit))
        return sums.Sums((value,), sums.as_pairs(gradient))

    return sums.sum_tiles(of_tile, (x, y, weights))


@jax.jit
def _scores(fit, x, y, weights, scale):
    """The weighted sums of losses and of hits."""

    def of_tile(rows):
        x, y, weights = rows
        losses, logits = _cross_entropy(fit, x, y, scale)
        hits = jnp.dot(weights, jnp.argmax(logits, axis=1) == y)
        return sums.Sums((jnp.dot(weights, losses), hits), ())

    return sums.sum_tiles(of_tile, (x, y, weights))


@jax.jit
def _first_moments(of, x, y, weights, scale):
    """The weighted sums of the features."""
    return _sum_rows(lambda x: x, x, weights)


@jax.jit
def _second_moments(mean, x, y, weights, scale):
    """The weighted sums of squared differences from the mean."""
    return _sum_rows(lambda x: (x - mean[None]) ** 2, x, weights)


def _sum_rows(function, x, weights):
    """Rows are added two by two: rounding must not hide that a feature is constant."""
    of_tile = lambda rows: sums.sum_rows(rows[1][:, None] * function(rows[0].astype(jnp.float32)))
    return sums.sum_tiles(lambda rows: sums.Sums((), of_tile(rows)), (x, weights))
