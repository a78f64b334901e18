"""How far the affinity matrix is from symmetric, without forming it."""

import functools

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
    return _root(8 * _eighth((rows + columns) / 2, (rows - columns) / 2, axis_name))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _eighth(total: Array, difference: Array, axis_name: AxisName) -> Array:
    r""":math:`\langle T^\top T, S^\top S \rangle - \operatorname{tr}[(S^\top T)^2]` for S, T [b, D] of all devices.

    The gradient, :math:`2 (S\, T^\top T - T\, S^\top T)` at S and :math:`2 (T\, S^\top S - S\, T^\top S)` at T, is four products
    with the Grams; differentiating each Gram on its own would take six.
    """
    return _forward(total, difference, axis_name)[0]


def _forward(total: Array, difference: Array, axis_name: AxisName):
    totals = _product(total.T, total)
    differences = _product(difference.T, difference)
    cross = _product(total.T, difference)
    grams = sum_over((totals, differences, cross), axis_name)
    totals, differences, cross = grams
    value = jnp.sum(differences * totals) - jnp.sum(cross * cross.T)
    return value, (total, difference, grams)


def _backward(axis_name: AxisName, saved, gradient: Array) -> tuple[Array, Array]:
    total, difference, (totals, differences, cross) = saved
    twice = 2 * sum_over(gradient, axis_name)
    to_total = _product(total, twice * differences) - _product(difference, twice * cross)
    to_difference = _product(difference, twice * totals) - _product(total, twice * cross.T)
    return to_total, to_difference


_eighth.defvjp(_forward, _backward)


def _product(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _root(squared: Array) -> Array:
    """Square root, zero with zero gradient where rounding has left nothing positive."""
    positive = squared > 0
    root = jnp.sqrt(jnp.where(positive, squared, jnp.ones_like(squared)))
    return jnp.where(positive, root, jnp.zeros_like(squared))
