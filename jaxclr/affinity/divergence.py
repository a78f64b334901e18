"""Divergence of the softmaxes of rows and columns of the affinity matrix, a tile at a time."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, each_shard
from jaxclr.affinity.logsumexp import Implementation, one_tile_plan
from jaxclr.affinity.streamed import Plan
from jaxclr.affinity.tiles import fold, matmul, tiling

Array = jax.Array


def divergence(
    rows: Array,
    columns: Array,
    *,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> Array:
    r"""Symmetric divergence of the softmaxes of row i and column i of the global affinity matrix.

    .. math:: d_i = \tfrac12 KL(p_i \| q_i) + \tfrac12 KL(q_i \| p_i), \qquad
       p_i = \operatorname{softmax}_j A_{ij},\; q_i = \operatorname{softmax}_j A_{ji},
       \qquad A = X Y^\top

    A and its transpose are formed tile by tile, once forward and once backward. No gradient is sent
    between devices: each computes the gradient at its rows from the softmaxes of all rows.

    Args:
      rows: X, [b, D], already divided by the temperature.
      columns: Y, [b, D], this device's columns.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.
      implementation: as of `row_logsumexp`; "dense" is one tile.
      tile: rows and columns of a tile; None for the default.

    Returns:
      [b].
    """
    plan = one_tile_plan(implementation, rows, columns, axis_name, tile)
    return _divergence(jnp.stack([rows, columns]), plan)


class _Softmaxes(NamedTuple):
    """Running sums of each row [2, n], of A and of its transpose.

    Attributes:
      largest: largest logit.
      total: sum of the exponentials of the logits less the largest.
      excess: sum of the logits less those of the other matrix, weighted by the exponentials.
    """

    largest: Array
    total: Array
    excess: Array


class _RowWeights(NamedTuple):
    """Coefficients of the gradient at logits of each row [2, n], p (1 + excess - mean) - q."""

    largest: Array
    scale: Array
    mean: Array
    factor: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _divergence(both: Array, plan: Plan) -> Array:
    return _forward(both, plan)[0]


def _forward(both: Array, plan: Plan):
    like = both[:, :, 0]
    state = _Softmaxes(jnp.full_like(like, -jnp.inf), jnp.zeros_like(like), jnp.zeros_like(like))
    visit = lambda found, shard: (_accumulate(found, both, shard[0], plan.tile), shard)
    found = _each_shard(visit, state, (both,), plan)
    # KL(p || q) + KL(q || p): the log-sum-exps of the two cancel.
    return jnp.sum(found.excess / found.total, axis=0) / 2, (both, found)


def _backward(plan: Plan, saved, gradient: Array):
    both, found = saved
    factor = jnp.broadcast_to(gradient[None, :] / 2, found.total.shape)
    by_row = _RowWeights(found.largest, 1 / found.total, found.excess / found.total, factor)
    visit = lambda to_rows, shard: (
        to_rows + _backward_shard(both, by_row, shard[0], shard[1], plan.tile),
        shard,
    )
    return (_each_shard(visit, jnp.zeros_like(both), (both, by_row), plan),)


_divergence.defvjp(_forward, _backward)


def _each_shard(visit, carry, shard, plan: Plan):
    """`each_shard` for arrays whose second axis runs over the rows."""
    flip = lambda tree: jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), tree)

    def visit_flipped(carry, shard):
        carry, shard = visit(carry, flip(shard))
        return carry, flip(shard)

    return each_shard(visit_flipped, carry, flip(shard), plan.axis_name, ring=plan.ring)[0]


def _accumulate(found: _Softmaxes, rows: Array, columns: Array, tile: int) -> _Softmaxes:
    """Running sums [2, m] after these columns [2, n, D]."""
    column_tiles = _cut((columns, jnp.ones(columns.shape[:2], bool)), tile)

    def rows_of_a_tile(inputs):
        row_tile, before = inputs

        def columns_of_a_tile(before: _Softmaxes, column_tile) -> tuple[_Softmaxes, None]:
            values, real = column_tile
            logits = _logits(row_tile, values)
            kept = jnp.where(real[:, None, :], logits, -jnp.inf)
            largest = jnp.maximum(before.largest, jnp.max(kept, axis=2))
            shrink = jnp.exp(before.largest - largest)
            exponentials = jnp.exp(kept - largest[:, :, None])
            total = before.total * shrink + jnp.sum(exponentials, axis=2)
            excess = jnp.sum(exponentials * (logits - logits[::-1]), axis=2)
            return _Softmaxes(largest, total, before.excess * shrink + excess), None

        return jax.lax.scan(columns_of_a_tile, before, column_tiles)[0]

    return _join(jax.lax.map(rows_of_a_tile, _cut((rows, found), tile)), rows.shape[1])


def _backward_shard(
    rows: Array, by_row: _RowWeights, columns: Array, by_column: _RowWeights, tile: int
) -> Array:
    """The part of these columns [2, n, D] in the gradient at rows [2, m, D]."""
    # A_ij is a logit of row i of A and of row j of its transpose.
    by_column = jax.tree.map(lambda leaf: leaf[::-1], by_column)
    column_tiles = _cut((columns, by_column), tile)

    def rows_of_a_tile(inputs):
        row_tile, of_rows = inputs

        def columns_of_a_tile(to_rows: Array, column_tile) -> tuple[Array, None]:
            values, of_columns = column_tile
            logits = _logits(row_tile, values)
            weights = _weights(logits, *(leaf[:, :, None] for leaf in of_rows))
            weights += _weights(logits, *(leaf[:, None, :] for leaf in of_columns))
            return to_rows + matmul(weights, values[::-1]), None

        return jax.lax.scan(columns_of_a_tile, jnp.zeros_like(row_tile), column_tiles)[0]

    return _join(jax.lax.map(rows_of_a_tile, _cut((rows, by_row), tile)), rows.shape[1])


def _logits(rows: Array, columns: Array) -> Array:
    """Tiles [2, m, n] of A and of its transpose."""
    return matmul(rows, jnp.swapaxes(columns[::-1], 1, 2))


def _weights(logits: Array, largest: Array, scale: Array, mean: Array, factor: Array) -> Array:
    """The gradient at a tile of logits [2, m, n]; the padding has a scale and a factor of zero."""
    softmaxes = jnp.exp(logits - largest) * scale
    excess = logits - logits[::-1]
    return factor * (softmaxes * (1 + excess - mean) - softmaxes[::-1])


def _cut(tree, tile: int):
    """Arrays [2, n, ...] in equal tiles [count, 2, height, ...], padded with zeros at the end."""

    def cut(leaf: Array) -> Array:
        rows = fold(jnp.swapaxes(leaf, 0, 1), tiling(leaf.shape[1], tile))
        return jnp.swapaxes(rows, 1, 2)

    return jax.tree.map(cut, tree)


def _join(tree, count: int):
    """The first `count` rows of tiles: [tiles, 2, height, ...] to [2, count, ...]."""
    return jax.tree.map(
        lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(2, -1, *leaf.shape[3:])[:, :count], tree
    )
