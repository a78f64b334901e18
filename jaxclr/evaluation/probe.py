"""Linear probes: with all labels, and with a few per class, l2 chosen on training data alone."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxclr.errors import UserError
from jaxclr.evaluation.checks import check_pair
from jaxclr.evaluation.linear import LinearFit, fit_linear, linear_logits, standardize

# Strongest first: each fit starts from the one before.
L2_GRID = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)

VALIDATION_FRACTION = 0.2
VALIDATION_ROWS = 2000

# Enough to rank the values of l2; the fit that sees the test rows goes on from there to FINAL.
CHOOSING = 1e-3
FINAL = 1e-4
_fit = functools.partial(fit_linear, max_iterations=300)


class LinearProbe(NamedTuple):
    """Test accuracy, the l2 it was reached with, and how every l2 of the grid did on validation."""

    accuracy: float
    l2: float
    grid: tuple[float, ...]
    validation: tuple[float, ...]


class FewLabelProbe(NamedTuple):
    """Mean and deviation (n - 1) of the test accuracies of the draws, and the l2 they share."""

    mean: float
    std: float
    accuracies: tuple[float, ...]
    l2: float
    grid: tuple[float, ...]
    validation: tuple[float, ...]


def linear_probe(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    classes: int,
    seed: int,
    grid: tuple[float, ...] = L2_GRID,
) -> LinearProbe:
    """Logistic regression on standardised features, l2 from a grid.

    Each l2 is fitted on four fifths of the training rows and judged on the rest; the best (of
    equals, the strongest) is refitted on all of them, and that fit sees the test rows, once.

    Args:
      train_x: features, [N, D].
      train_y: their labels, [N], integers from 0 to classes - 1.
      test_x: features, [M, D].
      test_y: their labels, [M].
      classes: number of classes.
      seed: of the validation split, which is the same for every feature set.
      grid: values of l2.

    Returns:
      Accuracy in [0, 1], the l2 chosen, the grid from strongest to weakest, and its accuracies.

    Raises:
      UserError: a label is out of range, or there are fewer than two training rows.
      ValueError: shapes or types are wrong.
    """
    train_y, test_y = check_pair(train_x, train_y, test_x, test_y, classes)
    count = len(train_y)
    held_out = round(count * VALIDATION_FRACTION) or 1
    if count < 2:
        raise UserError("A linear probe needs at least 2 training rows, got 1.")
    grid = tuple(sorted(grid, reverse=True))
    train_x, test_x = standardize(train_x, test_x)

    # Held-out rows get weight 0, so that choosing and refitting share one compilation.
    rows = np.random.default_rng(seed).permutation(count)[:held_out]
    weight = jnp.ones(count).at[rows].set(0.0)
    fits, validation = [_zeros(train_x, classes)], []
    for l2 in grid:
        fit = _fit(
            train_x,
            train_y,
            classes,
            l2,
            sample_weight=weight,
            start=fits[-1],
            tolerance=CHOOSING,
        )
        fits.append(fit)
        hits = _hits(fits[-1], train_x, train_y)
        validation.append(float(np.mean(np.asarray(hits)[rows])))
    best = int(np.argmax(validation))
    fit = _fit(
        train_x,
        train_y,
        classes,
        grid[best],
        sample_weight=jnp.ones(count),
        start=fits[best + 1],
        tolerance=FINAL,
    )
    accuracy = float(np.mean(np.asarray(_hits(fit, test_x, test_y))))
    return LinearProbe(accuracy, grid[best], grid, tuple(validation))


def few_label_probe(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    *,
    classes: int,
    per_class: int,
    draws: int = 10,
    seed: int,
    grid: tuple[float, ...] = L2_GRID,
) -> FewLabelProbe:
    """Logistic regression on a few labels per class, many times over.

    All features are standardised by the whole training set, which takes no labels. Every l2 is
    fitted to every draw and judged on up to 2,000 training rows outside that draw; the l2 with the
    best mean over draws (of equals, the strongest) is used for all, and only its fits see the test
    rows. Draws and validation rows depend on labels and seed alone: the same for all features.

    Where a draw has fewer rows than features, the fit is made in the span of its rows, in which
    the minimum lies: the same solution for a fraction of the work.

    Args:
      train_x: features, [N, D].
      train_y: their labels, [N], integers from 0 to classes - 1.
      test_x: features, [M, D].
      test_y: their labels, [M].
      classes: number of classes.
      per_class: labels per class and draw.
      draws: number of draws.
      seed: of the draws.
      grid: values of l2.

    Returns:
      Mean and standard deviation of the test accuracy over draws, each draw's accuracy, the l2
      chosen, the grid from strongest to weakest and its mean validation accuracies.

    Raises:
      UserError: a class has too few rows, draws leave none to choose l2 on, or a label is out of
        range.
      ValueError: shapes, types or hyper-parameters are wrong.
    """
    train_y, test_y = check_pair(train_x, train_y, test_x, test_y, classes)
    if per_class < 1 or draws < 1:
        raise ValueError(f"per_class and draws must be positive, got {per_class} and {draws}.")
    grid = tuple(sorted(grid, reverse=True))
    train_x, test_x = standardize(train_x, test_x)

    totals, fits = np.zeros(len(grid)), []
    for labelled, held_out in draw_few(train_y, classes, per_class, draws, seed):
        x, basis = _span(train_x[labelled])
        fit, path = _zeros(x, classes), []
        for place, l2 in enumerate(grid):
            fit = _fit(x, train_y[labelled], classes, l2, start=fit, tolerance=FINAL)
            path.append(_rotate(basis, fit))
            hits = _hits(path[-1], train_x[held_out], train_y[held_out])
            totals[place] += np.mean(np.asarray(hits))
        fits.append(path)
    best = int(np.argmax(totals))
    accuracies = [float(np.mean(np.asarray(_hits(path[best], test_x, test_y)))) for path in fits]
    return FewLabelProbe(
        mean=float(np.mean(accuracies)),
        std=float(np.std(accuracies, ddof=1)) if draws > 1 else 0.0,
        accuracies=tuple(accuracies),
        l2=grid[best],
        grid=grid,
        validation=tuple((totals / draws).tolist()),
    )


def draw_few(
    labels: np.ndarray, classes: int, per_class: int, draws: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows with labels, per_class of each class, and rows to validate on, for each draw."""
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < per_class:
        poorest = int(np.argmin(counts))
        raise UserError(
            f"{per_class} labels per class are asked for, but class {poorest} has "
            f"{counts[poorest]} training rows. Ask for {counts[poorest]} or fewer."
            if counts[poorest]
            else f"Class {poorest} has no training rows; {per_class} per class are asked for."
        )
    if len(labels) == per_class * classes:
        raise UserError(
            f"{per_class} labels per class are all {len(labels)} training rows; none is left to "
            "choose l2 on. Ask for fewer."
        )
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    result = []
    for _ in range(draws):
        drawn = [generator.choice(rows, per_class, replace=False) for rows in members]
        labelled = np.sort(np.concatenate(drawn))
        rest = np.setdiff1d(np.arange(len(labels)), labelled)
        result.append((labelled, np.sort(generator.permutation(rest)[:VALIDATION_ROWS])))
    return result


@jax.jit
def _span(x: Array) -> tuple[Array, Array | None]:
    """Coordinates of the rows in an orthonormal basis of their span, and the basis, if smaller."""
    if x.shape[0] >= x.shape[1]:
        return x, None
    basis, coordinates = jnp.linalg.qr(x.T)
    return coordinates.T, basis


@jax.jit
def _rotate(basis: Array | None, fit: LinearFit) -> LinearFit:
    if basis is None:
        return fit
    weights = jnp.matmul(basis, fit.weights, precision=jax.lax.Precision.HIGHEST)
    return LinearFit(weights, fit.bias)


@jax.jit
def _hits(fit: LinearFit, x: Array, y: Array) -> Array:
    return jnp.argmax(linear_logits(fit, x), axis=1) == y


def _zeros(x: Array, classes: int) -> LinearFit:
    return LinearFit(jnp.zeros((x.shape[1], classes)), jnp.zeros(classes))
