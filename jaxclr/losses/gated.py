"""Contrast in features that a gate selects: cosines whose norms depend on the pair, without [B, B, D]."""

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

_LEFT_OUT = -1e30  # a logit that weighs nothing and is finite
_SHORTEST_SQUARED = 1e-24  # of a gated row; below, it has no direction


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

    .. math:: \frac{1}{|P|} \sum_{(i, j) \in P} \Big[ \log \Big( e^{s_{ij}} + \sum_{n \in N(i)} e^{s_{in}} \Big) - s_{ij} \Big],
       \qquad s_{ij} = \cos(z_i \circ g_i,\, z_j \circ g_i) / \tau

    with pairs :math:`P = \{(i, j) : y_j = y'_i\}` of the global batch, j = i among them where the
    partner's label is its own, and negatives :math:`N(i) = \{n : y_n \notin \{y_i, y'_i\}\}`; a
    positive competes with negatives alone. Without pairs it is 0. The norms of gated rows come from
    a second matrix product, so that nothing is [B, B, D]: O(B^2 D) streamed.

    Needs: labels, gates.
    Cost: B²D.
    Global batch: row sums over all columns.

    Args:
      z: embeddings, [b, D], any float dtype; of any length.
      gate: g, [b, D], what each row's pair of classes attends to, zero or more; of any length.
      labels: y, any integers, [b].
      partner_labels: y', [b], the other class of each row's pair.
      temperature: tau; positive.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      This device's share of the loss: the loss of the global batch, the same on every device.

    Raises:
      TypeError: z or gate is no array of floats, labels are no integers, or temperature is no
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
    """Rows and columns [b, D] whose inner products are the logits but for the columns' norms, and what gives these."""

    rows: Array
    columns: Array
    squared_gate: Array
    squares: Array


class _Labels(NamedTuple):
    """Of this device's rows [b]."""

    own: Array
    partner: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _competition(sides: _Sides, labels: _Labels, axis_name: AxisName) -> tuple[Array, Array]:
    """Sum over each row's positives of their cross-entropy against its negatives, and their number: [b] each.

    The gradient goes to positives at once and to negatives through their log-sum-exp. One pass does
    both, once the forward pass has told how much all positives of a row push its negatives.
    """
    return _forward(sides, labels, axis_name)[0]


def _forward(sides: _Sides, labels: _Labels, axis_name: AxisName):
    def positive(logits, kinds, against):
        pairs = kinds.positive.astype(logits.dtype)
        excess = against - logits
        return pairs * jax.nn.softplus(excess), pairs, pairs * jax.nn.sigmoid(excess)

    def negative(logits, kinds):
        return jnp.where(kinds.negative, logits, jnp.asarray(_LEFT_OUT, logits.dtype))

    against = _over_pairs(row_logsumexp_of, negative, sides, labels, axis_name)
    total, count, push = _over_pairs(row_sum, positive, sides, labels, axis_name, against)
    return (total, count), (sides, labels, against, push)


def _backward(axis_name: AxisName, saved, gradient: tuple[Array, Array]):
    sides, labels, against, push = saved

    def of_same_slope(logits, kinds, against, push):
        pull = kinds.positive.astype(logits.dtype) * jax.nn.softplus(against - logits)
        left_out = jnp.asarray(_LEFT_OUT, logits.dtype)
        return pull + push * jnp.exp(jnp.where(kinds.negative, logits - against, left_out))

    row_losses = lambda sides: _over_pairs(
        row_sum, of_same_slope, sides, labels, axis_name, against, push
    )
    (to_sides,) = jax.vjp(row_losses, sides)[1](gradient[0])
    return to_sides, None


_competition.defvjp(_forward, _backward)


class _Kinds(NamedTuple):
    """Which pairs [m, n] are positives, and which negatives."""

    positive: Array
    negative: Array


def _over_pairs(reduce, f, sides: _Sides, labels: _Labels, axis_name: AxisName, *row_values: Array):
    """`row_sum` or `row_logsumexp_of` of a function of logits [m, n], kinds of pairs, and the row values [m, 1]."""

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
    """Of rows of these squared lengths; 0, with no gradient, of rows without a direction."""
    short = squares < _SHORTEST_SQUARED
    safe = jnp.where(short, jnp.ones_like(squares), squares)
    return jnp.where(short, jnp.zeros_like(squares), jax.lax.rsqrt(safe))
