"""Statistics of rows against themselves: the matrix of logits is symmetric, so that one tile serves its rows and its columns.

Against the rows of this device, of two mirrored tiles only one is computed. Against those of other devices every tile is,
but none sends a gradient: each device computes its rows' from the weighings of all.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.affinity.collectives import axis_size, each_shard
from jaxclr.affinity.streamed import Plan, meet_all
from jaxclr.affinity.tiles import (
    Running,
    Side,
    Statistics,
    Weighing,
    across,
    begin,
    cut,
    cut_weighing,
    finish,
    fold,
    join,
    matches,
    matmul,
    observe,
    pull_tiles,
    scores,
    weigh,
)

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def symmetric(rows: Side, plan: Plan) -> Statistics:
    """Statistics of each row [m] of this device over the rows of all devices with another id."""
    return finish(_meet(rows, plan))


def _meet(rows: Side, plan: Plan) -> Running:
    if axis_size(plan.axis_name) == 1:
        return _meet_itself(rows, plan.tile)
    return meet_all(rows, rows, plan)


def _forward(rows: Side, plan: Plan):
    running = _meet(rows, plan)
    return finish(running), (rows, running)


def _backward(plan: Plan, saved, gradient: Statistics):
    rows, running = saved
    weighing = weigh(running, gradient)
    if axis_size(plan.axis_name) == 1:
        return (Side(_pull_itself(rows, weighing, plan.tile)),)

    def visit(to_rows, travelling):
        shard, by_column = travelling
        return to_rows + _pull(rows, shard, weighing, by_column, plan.tile), travelling

    nothing = jnp.zeros_like(rows.values)
    to_rows, _ = each_shard(visit, nothing, (rows, weighing), plan.axis_name, ring=plan.ring)
    return (Side(to_rows),)


symmetric.defvjp(_forward, _backward)


def _meet_itself(rows: Side, tile: int) -> Running:
    """What rows [m] have met after each other."""
    tiles = cut(rows, tile, bias=True)
    nothing = begin(rows, labelled=rows.labels is not None, mean=False, expected=False)

    def diagonal(inputs: tuple[Side, Running]) -> Running:
        own, before = inputs
        logits = scores(own, own)
        return observe(before, logits, matches(logits, own, own), None)

    def mirrored(running: Running, places: Array) -> tuple[Running, None]:
        upper, lower = (_take(tiles, place) for place in places)
        logits = scores(upper, lower)
        matching = matches(logits, upper, lower)
        of_upper = observe(_take(running, places[0]), logits, matching, None)
        of_lower = observe(_take(running, places[1]), logits, matching, None, axis=0)
        put = lambda leaf, one, other: leaf.at[places[0]].set(one).at[places[1]].set(other)
        return jax.tree.map(put, running, of_upper, of_lower), None

    running = jax.lax.map(diagonal, (tiles, fold(nothing, tiles.values.shape[:2])))
    running = jax.lax.scan(mirrored, running, _pairs(tiles))[0]
    return join(running, rows.values.shape[0])


def _pull_itself(rows: Side, weighing: Weighing, tile: int) -> Array:
    """The gradient at rows [m, D] from the logits of each other."""
    tiles = cut(rows, tile, bias=True)
    weighings = cut_weighing(weighing, tiles.values.shape[:2])

    def diagonal(inputs: tuple[Side, Weighing]) -> Array:
        own, by_row = inputs
        return matmul(_weights(own, own, by_row, by_row), own.values)

    def mirrored(carry: tuple[Array, Array], places: Array) -> tuple[tuple[Array, Array], None]:
        to_upper, to_lower = carry
        (upper, of_upper), (lower, of_lower) = (_take((tiles, weighings), place) for place in places)
        weights = _weights(upper, lower, of_upper, of_lower)
        to_upper = to_upper.at[places[0]].add(matmul(weights, lower.values))
        to_lower = to_lower.at[places[1]].add(matmul(across(upper.values), weights))
        return (to_upper, to_lower), None

    to_rows = jax.lax.map(diagonal, (tiles, weighings))
    carry = to_rows, jnp.zeros_like(jnp.swapaxes(to_rows, 1, 2))
    to_upper, to_lower = jax.lax.scan(mirrored, carry, _pairs(tiles))[0]
    return join(to_upper + jnp.swapaxes(to_lower, 1, 2), rows.values.shape[0])


def _pull(rows: Side, columns: Side, of_rows: Weighing, of_columns: Weighing, tile: int) -> Array:
    """What these columns [n] add to the gradient at rows [m, D], where every row is a column too."""
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)
    every_row = row_tiles, cut_weighing(of_rows, row_tiles.values.shape[:2])
    every_column = column_tiles, cut_weighing(of_columns, column_tiles.values.shape[:2])
    weights = lambda row, column: _weights(row[0], column[0], row[1], column[1])
    return pull_tiles(weights, every_row, every_column, rows.values.shape[0])


def _weights(rows: Side, columns: Side, of_rows: Weighing, of_columns: Weighing) -> Array:
    """The gradient [m, n] at a tile of logits: what it owes to its rows and what to its columns."""
    logits = scores(rows, columns)
    weights = jnp.exp(logits - of_rows.shift[:, None]) * of_rows.factor[:, None]
    weights += jnp.exp(logits - of_columns.shift[None, :]) * of_columns.factor[None, :]
    if of_rows.matched is not None:
        both = of_rows.matched[:, None] + of_columns.matched[None, :]
        weights += jnp.where(matches(logits, rows, columns), both, jnp.zeros_like(both))
    return weights


def _pairs(tiles: Side) -> Array:
    """The places of every two tiles, [pairs, 2], the upper before the lower."""
    return jnp.asarray(np.stack(np.triu_indices(tiles.values.shape[0], 1), axis=1), jnp.int32)


def _take(tree, place: Array):
    return jax.tree.map(lambda leaf: leaf[place], tree)
