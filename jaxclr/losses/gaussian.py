"""Embeddings of isotropic Gaussian distribution, by tests of their projections."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_count,
    check_floats,
    check_positive,
    check_share,
    check_views,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul

Array = jax.Array


def sigreg(
    z: Array,
    directions: Array,
    *,
    t_max: float = 3.0,
    knots: int = 17,
    axis_name: AxisName = None,
) -> Array:
    r"""Mean Epps-Pulley statistic of projections against a standard normal (SIGReg).

    .. math:: \frac1K \sum_k B \int_{-t_m}^{t_m}
       \Big| \frac1B \sum_i e^{\mathrm{i} t \langle z_i, a_k \rangle} - e^{-t^2/2} \Big|^2
       e^{-t^2/2} \, dt

    with unit directions a. The integral is a trapezoidal sum over the knots from 0 to the largest
    t, doubled, as in the official code. Cosines and sines of all knots come from those of the first
    one, by complex products, and the backward pass computes them again: O(bK) memory.

    The official code draws the directions itself, seeded by a counter of steps; its example of one
    file draws others on every device. lightly's first version gave 1/n of the gradient on n
    devices.

    Needs: one view, directions.
    Cost: BDK + BK knots.
    Global batch: characteristic functions.

    >>> z = jax.random.normal(jax.random.key(0), (8, 4))
    >>> directions = jax.random.normal(jax.random.key(1), (16, 4))
    >>> round(float(losses.sigreg(z, directions)), 2)
    0.77

    Args:
      z: embeddings, [b, D], any float dtype; taken as they are.
      directions: [K, D], the same on every device, new in every step: normal draws; rows are
        normalized here, and receive no gradient.
      t_max: the largest t; positive.
      knots: points of the integral from 0 to `t_max`; at least 2.
      axis_name: mapped axis over which the batch is spread; None if z is all of it.

    Returns:
      The loss of the global batch, the same on every device.

    Raises:
      TypeError: an input is not an array of floats, t_max is not a number or knots not an integer.
      ValueError: shapes do not fit, or a hyper-parameter is out of range.

    References:
      Balestriero and LeCun, LeJEPA: Provable and Scalable Self-Supervised Learning Without the
      Heuristics, 2025 (arXiv:2511.08544).
    """
    z, directions = check_floats(z=(z, "b D"), directions=(directions, "K D"))
    check_positive("t_max", t_max)
    check_count("knots", knots, least=2)
    step = jnp.asarray(t_max, z.dtype) / (knots - 1)
    angles = step * matmul(z, unit_rows(jax.lax.stop_gradient(directions)).T)
    count = batch_size(z, axis_name)
    local: tuple[Array, Array] = _sums_of_powers(angles, knots - 1)
    real, imaginary = sum_over(local, axis_name)
    t = step * jnp.arange(1, knots, dtype=z.dtype)
    normal = jnp.exp(-(t**2) / 2)
    # At t = 0 both functions are 1. Every other knot counts for -t too; the last is half inside.
    weights = 2 * step * normal * jnp.where(jnp.arange(1, knots) == knots - 1, 0.5, 1)
    errors = (real / count - normal[:, None]) ** 2 + (imaginary / count) ** 2
    return count * jnp.sum(weights * jnp.mean(errors, axis=1))


def lejepa(
    views: Array | Sequence[Array],
    directions: Array,
    *,
    weight: float | Array = 0.05,
    t_max: float = 3.0,
    knots: int = 17,
    axis_name: AxisName = None,
) -> Array:
    r"""Distance of views from their mean, and `sigreg` of each view (LeJEPA).

    .. math:: \frac{1 - \lambda}{VBD} \sum_{v, i} \|z_{vi} - \bar z_i\|^2
       + \frac\lambda V \sum_v \operatorname{SIGReg}(Z_v)

    The mean is over all views, as in the official example; with small crops the paper's is over the
    global views alone. The statistic grows with the batch, the distance does not.

    Needs: views, directions.
    Cost: VBDK + VBK knots.
    Global batch: characteristic functions.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> directions = jax.random.normal(jax.random.key(1), (16, 4))
    >>> round(float(losses.lejepa(views, directions)), 2)
    0.65

    Args:
      views: V views of the same images, [V, b, D] or a sequence of [b, D], any float dtype; at
        least two; taken as they are.
      directions: [K, D], as of `sigreg`; all views have the same.
      weight: lambda, 0 to 1.
      t_max: the largest t; positive.
      knots: points of the integral from 0 to `t_max`; at least 2.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or a hyper-parameter is not a number.
      ValueError: shapes do not fit, views are fewer than two, or a hyper-parameter is out of range.

    References:
      Balestriero and LeCun, arXiv:2511.08544.
    """
    views = check_views(views)
    check_share("weight", weight)
    spread = [
        sigreg(view, directions, t_max=t_max, knots=knots, axis_name=axis_name) for view in views
    ]
    distance = jnp.mean((views - jnp.mean(views, axis=0, keepdims=True)) ** 2)
    return (1 - weight) * distance + weight * sum(spread) / len(spread)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sums_of_powers(angles: Array, count: int) -> tuple[Array, Array]:
    """Sums over rows of cos(n x) and sin(n x), [count, K] each, of angles x [b, K]; n from 1."""
    first = jnp.cos(angles), jnp.sin(angles)

    def turn(power: tuple[Array, Array], _: None):
        cosine, sine = power
        return _product(power, first), (jnp.sum(cosine, axis=0), jnp.sum(sine, axis=0))

    return jax.lax.scan(turn, first, length=count)[1]


def _product(x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
    """Of complex numbers, as real and imaginary parts."""
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _forward(angles: Array, count: int):
    return _sums_of_powers(angles, count), angles


def _backward(count: int, angles: Array, gradients: tuple[Array, Array]) -> tuple[Array]:
    first = jnp.cos(angles), jnp.sin(angles)
    numbers = jnp.arange(1, count + 1, dtype=angles.dtype)[:, None, None]

    def turn(carry: tuple[Array, tuple[Array, Array]], slopes: tuple[Array, Array]):
        total, (cosine, sine) = carry
        to_cosine, to_sine = slopes
        total = total + to_sine * cosine - to_cosine * sine
        return (total, _product((cosine, sine), first)), None

    start = jnp.zeros_like(angles), first
    slopes = jax.tree.map(lambda one: numbers * one[:, None, :], gradients)
    (total, _), _ = jax.lax.scan(turn, start, slopes)
    return (total,)


_sums_of_powers.defvjp(_forward, _backward)
