"""Statistics of rows against themselves, where a tile of logits serves its rows and its columns.

On one device, only one of two mirrored tiles is computed. On several devices every tile is
computed, but no gradient is sent: each device computes the gradient at its rows from the
coefficients of all rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.affinity.collectives import axis_size, each_shard
from jaxclr.affinity.streamed import Plan, accumulate_all
from jaxclr.affinity.tiles import (
    RowWeights,
    Running,
    Side,
    Statistics,
    Tree,
    accumulate_tile,
    backward_tiles,
    cut,
    cut_row_weights,
    finish,
    fold,
    initial,
    join,
    matmul,
    row_weights,
    same_label,
    tile_logits,
    transposed,
)

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def symmetric(rows: Side, plan: Plan) -> Statistics:
    """Statistics of each row [m] of this device over all rows with another id."""
    return finish(_accumulate(rows, plan))


def _accumulate(rows: Side, plan: Plan) -> Running:
    if axis_size(plan.axis_name) == 1:
        return _accumulate_self(rows, plan.tile)
    return accumulate_all(rows, rows, plan)


def _forward(rows: Side, plan: Plan):
    running = _accumulate(rows, plan)
    return finish(running), (rows, running)


def _backward(plan: Plan, saved, gradient: Statistics):
    rows, running = saved
    by_row = row_weights(running, gradient)
    if axis_size(plan.axis_name) == 1:
        return (Side(_backward_self(rows, by_row, plan.tile)),)

    def visit(to_rows, columns):
        shard, by_column = columns
        return to_rows + _backward_shard(rows, shard, by_row, by_column, plan.tile), columns

    zeros = jnp.zeros_like(rows.values)
    to_rows, _ = each_shard(visit, zeros, (rows, by_row), plan.axis_name, ring=plan.ring)
    return (Side(to_rows),)


symmetric.defvjp(_forward, _backward)


def _accumulate_self(rows: Side, tile: int) -> Running:
    """Running sums of rows [m] over each other."""
    tiles = cut(rows, tile, bias=True)
    state = initial(rows, labeled=rows.labels is not None, mean=False, expected=False)

    def diagonal(inputs: tuple[Side, Running]) -> Running:
        own, before = inputs
        logits = tile_logits(own, own)
        return accumulate_tile(before, logits, same_label(logits, own, own), None)

    def mirrored(running: Running, pair: Array) -> tuple[Running, None]:
        upper, lower = (_take(tiles, index) for index in pair)
        logits = tile_logits(upper, lower)
        matching = same_label(logits, upper, lower)
        of_upper = accumulate_tile(_take(running, pair[0]), logits, matching, None)
        of_lower = accumulate_tile(_take(running, pair[1]), logits, matching, None, axis=0)
        put = lambda leaf, one, other: leaf.at[pair[0]].set(one).at[pair[1]].set(other)
        return jax.tree.map(put, running, of_upper, of_lower), None

    running = jax.lax.map(diagonal, (tiles, fold(state, tiles.values.shape[:2])))
    running = jax.lax.scan(mirrored, running, _pairs(tiles))[0]
    return join(running, rows.values.shape[0])


def _backward_self(rows: Side, by_row: RowWeights, tile: int) -> Array:
    """The gradient at rows [m, D] through the logits of each pair of them."""
    tiles = cut(rows, tile, bias=True)
    weight_tiles = cut_row_weights(by_row, tiles.values.shape[:2])

    def diagonal(inputs: tuple[Side, RowWeights]) -> Array:
        own, by_row = inputs
        return matmul(_weights(own, own, by_row, by_row), own.values)

    def mirrored(carry: tuple[Array, Array], pair: Array) -> tuple[tuple[Array, Array], None]:
        to_upper, to_lower = carry
        (upper, of_upper), (lower, of_lower) = (
            _take((tiles, weight_tiles), index) for index in pair
        )
        weights = _weights(upper, lower, of_upper, of_lower)
        to_upper = to_upper.at[pair[0]].add(matmul(weights, lower.values))
        to_lower = to_lower.at[pair[1]].add(matmul(transposed(upper.values), weights))
        return (to_upper, to_lower), None

    to_rows = jax.lax.map(diagonal, (tiles, weight_tiles))
    carry = to_rows, jnp.zeros_like(jnp.swapaxes(to_rows, 1, 2))
    to_upper, to_lower = jax.lax.scan(mirrored, carry, _pairs(tiles))[0]
    return join(to_upper + jnp.swapaxes(to_lower, 1, 2), rows.values.shape[0])


def _backward_shard(
    rows: Side, columns: Side, by_row: RowWeights, by_column: RowWeights, tile: int
) -> Array:
    """The part of these columns [n] in the gradient at rows [m, D]; every row is a column too."""
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)
    row_side = row_tiles, cut_row_weights(by_row, row_tiles.values.shape[:2])
    column_side = column_tiles, cut_row_weights(by_column, column_tiles.values.shape[:2])
    weights = lambda row, column: _weights(row[0], column[0], row[1], column[1])
    return backward_tiles(weights, row_side, column_side, rows.values.shape[0])


def _weights(rows: Side, columns: Side, by_row: RowWeights, by_column: RowWeights) -> Array:
    """The gradient [m, n] at a tile of logits, as logits of their rows and of their columns."""
    logits = tile_logits(rows, columns)
    weights = jnp.exp(logits - by_row.shift[:, None]) * by_row.factor[:, None]
    weights += jnp.exp(logits - by_column.shift[None, :]) * by_column.factor[None, :]
    if by_row.matched is not None:
        both = by_row.matched[:, None] + by_column.matched[None, :]
        weights += jnp.where(same_label(logits, rows, columns), both, jnp.zeros_like(both))
    return weights


def _pairs(tiles: Side) -> Array:
    """The indices of every two tiles, [pairs, 2], the upper before the lower."""
    return jnp.asarray(np.stack(np.triu_indices(tiles.values.shape[0], 1), axis=1), jnp.int32)


def _take(tree: Tree, index: Array) -> Tree:
    return jax.tree.map(lambda leaf: leaf[index], tree)
