"""Multinomial logistic regression on the whole batch, by L-BFGS."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxclr.evaluation.checks import check_features


class LinearFit(NamedTuple):
    """Weights [D, C] and bias [C] of a linear classifier."""

    weights: Array
    bias: Array


def linear_logits(fit: LinearFit, x: Array) -> Array:
    """Logits [n, C] of features [n, D], in float32."""
    x = x.astype(jnp.float32)
    return jnp.matmul(x, fit.weights, precision=jax.lax.Precision.HIGHEST) + fit.bias[None]


@functools.partial(jax.jit, static_argnames=("classes", "max_iterations"))
def fit_linear(
    x: Array,
    y: Array,
    classes: int,
    l2: float | Array,
    *,
    sample_weight: Array | None = None,
    start: LinearFit | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
) -> LinearFit:
    r"""Minimises the mean cross-entropy with a ridge on the weights; the bias is free.

    .. math:: \frac{\sum_i w_i \, \mathrm{CE}(W^\top x_i + b, y_i)}{\sum_i w_i}
              + \frac{\lambda}{2} \|W\|^2

    With unit weights this is scikit-learn's LogisticRegression(C=1 / (l2 * n)). It can be jitted,
    and mapped by vmap over l2, over labels and over sample weights: draws of labels of different
    sizes share one shape, and one compilation, if they differ in weights only.

    Args:
      x: features, [n, D]; standardise them first, for speed and for l2 to mean the same.
      y: labels, [n], integers from 0 to classes - 1.
      classes: number of classes, C.
      l2: ridge, lambda; not negative.
      sample_weight: [n], not negative, not all zero; None: all equal.
      start: where to start from, such as the fit of a neighbouring l2; None: zeros.
      tolerance: stops once the norm of the gradient is no larger.
      max_iterations: stops then in any case, or when a step no longer changes anything in float32.

    Returns:
      Weights [D, C] and bias [C], float32.

    Raises:
      ValueError: shapes do not match.

    References:
      Liu and Nocedal, On the limited memory BFGS method for large scale optimization, 1989.
    """
    check_features("x", x)
    if y.shape != x.shape[:1]:
        raise ValueError(f"y must be [{x.shape[0]}], one per row of x, got shape {y.shape}.")
    if sample_weight is None:
        sample_weight = jnp.ones(x.shape[0])
    if sample_weight.shape != y.shape:
        raise ValueError(f"sample_weight must be [{x.shape[0]}], got shape {sample_weight.shape}.")
    sample_weight = sample_weight.astype(jnp.float32) / jnp.sum(sample_weight)
    if start is None:
        start = LinearFit(jnp.zeros((x.shape[1], classes)), jnp.zeros(classes))

    def objective(fit: LinearFit) -> Array:
        losses = optax.softmax_cross_entropy_with_integer_labels(linear_logits(fit, x), y)
        return jnp.dot(sample_weight, losses) + 0.5 * l2 * jnp.sum(fit.weights**2)

    solver = optax.lbfgs()
    # The line search of a step leaves value and gradient of the next one in the state.
    value, gradient = jax.value_and_grad(objective)(start)
    state = optax.tree.set(solver.init(start), value=value, grad=gradient)

    def search(carry):
        fit, state, iteration, _ = carry
        value, gradient = optax.tree.get(state, "value"), optax.tree.get(state, "grad")
        updates, state = solver.update(
            gradient, state, fit, value=value, grad=gradient, value_fn=objective
        )
        moved = optax.tree.norm(updates) > 1e-7 * optax.tree.norm(fit)
        return optax.apply_updates(fit, updates), state, iteration + 1, moved

    def unfinished(carry):
        _, state, iteration, moved = carry
        steep = optax.tree.norm(optax.tree.get(state, "grad")) > tolerance
        return steep & moved & (iteration < max_iterations)

    return jax.lax.while_loop(unfinished, search, (start, state, 0, True))[0]


def standardize(train: Array, *others: Array) -> tuple[Array, ...]:
    r"""Features minus the train mean, over the train deviation, for train and any other split.

    Args:
      train: features whose mean and deviation are taken, [n, D].
      *others: features brought to the same scale, [m, D].

    Returns:
      All of them in float32. A feature that is constant on train keeps its scale.

    Raises:
      ValueError: a split is not a matrix of rows, or their widths differ.
    """
    for x in (train, *others):
        check_features("features", x)
        if x.shape[1] != train.shape[1]:
            raise ValueError(f"features differ in width: {train.shape[1]} and {x.shape[1]}.")
    train = train.astype(jnp.float32)
    mean, std = jnp.mean(train, axis=0), jnp.std(train, axis=0)
    # The mean of a constant is off by rounding, and so is its deviation.
    std = jnp.where(std > 1e-6 * jnp.max(jnp.abs(train), axis=0), std, 1.0)
    return tuple((x.astype(jnp.float32) - mean[None]) / std[None] for x in (train, *others))
