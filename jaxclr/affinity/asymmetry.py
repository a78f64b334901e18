"""How far the affinity matrix is from symmetric, without forming it."""

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, sum_over

Array = jax.Array


def asymmetry(rows: Array, columns: Array, *, axis_name: AxisName = None) -> Array:
    r"""Frobenius norm of the antisymmetric part, doubled, of the global affinity matrix.

    .. math:: \|A - A^\top\|_F^2 = 8 \left( \langle T^\top T, S^\top S \rangle - \operatorname{tr}[(S^\top T)^2] \right),
       \quad A = X Y^\top,\; S = (X + Y)/2,\; T = (X - Y)/2

    Three D x D Grams and one sum over devices: O(BD^2) time, O(D^2) memory beyond the rows. In float32 this keeps its
    accuracy where X and Y nearly agree, unlike Grams of X and Y. The gradient at 0 is 0.

    Args:
      rows: X, [b, D].
      columns: Y, [b, D].
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      The norm for the global batch, the same scalar on every device.
    """
    half_sum, half_difference = (rows + columns) / 2, (rows - columns) / 2
    grams = (
        _gram(half_difference, half_difference),
        _gram(half_sum, half_sum),
        _gram(half_sum, half_difference),
    )
    difference, total, cross = sum_over(grams, axis_name)
    squared = 8 * (jnp.sum(difference * total) - jnp.sum(cross * cross.T))
    return _root(squared)


def _gram(x: Array, y: Array) -> Array:
    return jnp.matmul(x.T, y, precision=jax.lax.Precision.HIGHEST)


def _root(squared: Array) -> Array:
    """Square root, zero with zero gradient where rounding has left nothing positive."""
    positive = squared > 0
    root = jnp.sqrt(jnp.where(positive, squared, jnp.ones_like(squared)))
    return jnp.where(positive, root, jnp.zeros_like(squared))
