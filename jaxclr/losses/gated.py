"""Contrast of gated features: cosines whose norms depend on the pair, without [B, B, D]."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    check_floats,
    check_ids,
    check_positive,
    row_logsumexp_of,
    row_sum,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul

Array = jax.Array

_EXCLUDED = -1e30  # a finite logit of zero weight
_SHORTEST_SQUARED = 1e-24  # squared norm below which a gated row has no direction


def gated_contrast(
    z: Array,
    gate: Array,
    labels: Array,
    partner_labels: Array,
    *,
    temperature: float | Array = 0.1,
    axis_name: AxisName = None,
) -> Array:
    r"""Contrast in the features that a gate selects for a pair of classes (Hydra, SimLAP).

    .. math:: \frac{1}{|P|} \sum_{(i, j) \in P} \Big[ \log \Big( e^{s_{ij}}
       + \sum_{n \in N(i)} e^{s_{in}} \Big) - s_{ij} \Big],
       \qquad s_{ij} = \cos(z_i \circ g_i,\, z_j \circ g_i) / \tau

    with pairs :math:`P = \{(i, j) : y_j = y'_i\}` of the global batch, j = i among them where the
    partner's label is its own, and negatives :math:`N(i) = \{n : y_n \notin \{y_i, y'_i\}\}`; a
    positive competes with negatives alone. Without pairs the loss is 0. The norms of gated rows
    come from a second matrix product, so that no array is [B, B, D].

    Needs: labels, gates.
    Cost: B²D.
    Global batch: row sums over all columns.

    >>> z = jax.random.normal(jax.random.key(0), (8, 4))
    >>> labels = jnp.arange(8) % 4
    >>> round(float(losses.gated_contrast(z, jnp.ones((8, 4)), labels, (labels + 1) % 4)), 2)
    7.86

    Args:
      z: embeddings, [b, D], any float dtype; of any length.
      gate: g, [b, D], the features that each row's pair of classes attends to; zero or more.
      labels: y, any integers, [b].
      partner_labels: y', [b], the other class of each row's pair.
      temperature: tau; positive.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      This device's share of the loss: the loss of the global batch, the same on every device.

    Raises:
      TypeError: z or gate is not an array of floats, labels are not integers, or temperature is no
        number.
      ValueError: shapes do not fit, or temperature is not positive.

    References:
      Learning from arbitrary pairs, 2024 (arXiv:2410.18200).
    """
    z, gate = check_floats(z=(z, "b D"), gate=(gate, "b D"))
    labels = check_ids("labels", labels, z.shape[0])
    partner_labels = check_ids("partner_labels", partner_labels, z.shape[0])
    check_positive("temperature", temperature)
    z = unit_rows(z)
    squared_gate, squares = jnp.square(unit_rows(gate)), jnp.square(z)
    own = _inverse_norms(jnp.sum(squared_gate * squares, axis=1)) / temperature
    sides = _Sides(z * squared_gate * own[:, None], z, squared_gate, squares)
    sums = _competition(sides, _Labels(labels, partner_labels), axis_name)
    total, count = sum_over(jax.tree.map(jnp.sum, sums), axis_name)
    return total / jnp.maximum(count, 1)


class _Sides(NamedTuple):
    """Rows and columns [b, D] of the logits up to the columns' norms, and factors of the norms."""

    rows: Array
    columns: Array
    squared_gate: Array
    squares: Array


class _Labels(NamedTuple):
    """Labels of this device's rows and of their partners, [b]."""

    own: Array
    partner: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _competition(sides: _Sides, labels: _Labels, axis_name: AxisName) -> tuple[Array, Array]:
    """Sum and number [b] of the cross-entropies of each row's positives against its negatives.

    The gradient reaches positives directly and negatives through their log-sum-exp. One backward
    pass does both: the forward pass sums the derivatives at each row's log-sum-exp.
    """
    return _forward(sides, labels, axis_name)[0]


def _forward(sides: _Sides, labels: _Labels, axis_name: AxisName):
    def positive(logits, kinds, against):
        pairs = kinds.positive.astype(logits.dtype)
        excess = against - logits
        return pairs * jax.nn.softplus(excess), pairs, pairs * jax.nn.sigmoid(excess)

    def negative(logits, kinds):
        return jnp.where(kinds.negative, logits, jnp.asarray(_EXCLUDED, logits.dtype))

    against = _over_pairs(row_logsumexp_of, negative, sides, labels, axis_name)
    total, count, slope = _over_pairs(row_sum, positive, sides, labels, axis_name, against)
    return (total, count), (sides, labels, against, slope)


def _backward(axis_name: AxisName, saved, gradient: tuple[Array, Array]):
    sides, labels, against, slope = saved

    def surrogate(logits, kinds, against, slope):
        positive = kinds.positive.astype(logits.dtype) * jax.nn.softplus(against - logits)
        excluded = jnp.asarray(_EXCLUDED, logits.dtype)
        return positive + slope * jnp.exp(jnp.where(kinds.negative, logits - against, excluded))

    row_losses = lambda sides: _over_pairs(
        row_sum, surrogate, sides, labels, axis_name, against, slope
    )
    (to_sides,) = jax.vjp(row_losses, sides)[1](gradient[0])
    return to_sides, None


_competition.defvjp(_forward, _backward)


class _Kinds(NamedTuple):
    """Which pairs [m, n] are positives, and which negatives."""

    positive: Array
    negative: Array


def _over_pairs(reduce, f, sides: _Sides, labels: _Labels, axis_name: AxisName, *row_values: Array):
    """`row_sum` or `row_logsumexp_of` of a function of logits, kinds of pairs and row values."""

    def of_pairs(products, squared_gate, own, partner, *values):
        *of_rows, squares, labels = values
        logits = products * _inverse_norms(matmul(squared_gate[:, 0], squares[0].T))
        positive = labels == partner
        return f(logits, _Kinds(positive, ~positive & (labels != own)), *of_rows)

    return reduce(
        of_pairs,
        sides.rows,
        sides.columns,
        row_values=(sides.squared_gate, labels.own, labels.partner, *row_values),
        column_values=(sides.squares, labels.own),
        axis_name=axis_name,
    )


def _inverse_norms(squares: Array) -> Array:
    """Inverse roots of squared norms; 0, without gradient, for rows without a direction."""
    short = squares < _SHORTEST_SQUARED
    safe = jnp.where(short, jnp.ones_like(squares), squares)
    return jnp.where(short, jnp.zeros_like(squares), jax.lax.rsqrt(safe))
