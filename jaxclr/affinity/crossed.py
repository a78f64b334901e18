"""Statistics of the affinity matrix in which a tile of logits serves its rows and its columns.

The gradient at rows and at columns takes one more pass over the tiles.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, axis_size, each_shard, row_ids, sum_over
from jaxclr.affinity.logsumexp import Ids, Implementation, one_tile_plan
from jaxclr.affinity.streamed import Plan, each_gradient
from jaxclr.affinity.tiles import (
    Running,
    Side,
    Statistics,
    accumulate_tile,
    backward_pairs,
    cut,
    finish,
    fold,
    initial,
    join,
    pull_weights,
    row_weights,
    tile_logits,
)

Array = jax.Array


def cross_logsumexp(
    rows: Array,
    columns: Array,
    *,
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> tuple[Array, Array]:
    r"""Log-sum-exps of the rows and of the columns of the global affinity matrix.

    .. math:: r_i = \log \sum_{j \,:\, u_i \ne v_j} \exp \langle x_i, y_j \rangle, \qquad
       c_j = \log \sum_{i \,:\, u_i \ne v_j} \exp \langle x_i, y_j \rangle

    Four matrix products for value and gradient; `row_logsumexp` in both directions takes eight.

    Args:
      rows: x, [b, D], already divided by the temperature.
      columns: y, [b', D], this device's columns.
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      axis_name: mapped axis over which rows and columns are spread; None if these are all of them.
      implementation: as of `row_logsumexp`; "dense" is one tile.
      tile: rows and columns of a tile; None for the default.

    Returns:
      r [b] and c [b'], of this device's rows and columns; -inf where every pair is excluded.
    """
    of_rows, of_columns = exclude or (None, None)
    plan = one_tile_plan(implementation, rows, columns, axis_name, tile)
    return _crossed(Side(rows, of_rows), Side(columns, of_columns), plan)


def row_softplus(
    rows: Array,
    columns: Array,
    *,
    exclude: Ids | None = None,
    column_bias: Array | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> Array:
    r"""Sum of the softplus of each row of the affinity matrix, over the columns of all devices.

    .. math:: s_i = \sum_{j \,:\, u_i \ne v_j} \log(1 + \exp(\langle x_i, y_j \rangle + c_j))

    `row_sum` of softplus, with a gradient of less memory, and in a ring.

    Args:
      rows: x, [b, D], already divided by the temperature.
      columns: y, [b', D], this device's columns.
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      column_bias: c [b'], added to each column.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      implementation: as of `row_logsumexp`; "dense" is one tile.
      tile: rows and columns of a tile; None for the default.

    Returns:
      [b].
    """
    of_rows, of_columns = exclude or (None, None)
    plan = one_tile_plan(implementation, rows, columns, axis_name, tile)
    bias = jnp.zeros_like(columns[:, 0]) if column_bias is None else column_bias
    return _softplus(Side(rows, of_rows), Side(columns, of_columns, bias), plan)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _crossed(rows: Side, columns: Side, plan: Plan) -> tuple[Array, Array]:
    return _crossed_forward(rows, columns, plan)[0]


def _crossed_forward(rows: Side, columns: Side, plan: Plan):
    start = functools.partial(initial, labeled=False, mean=False, expected=False)

    def visit(of_rows: Running, shard):
        side, of_columns = shard
        of_rows, of_columns = _accumulate(of_rows, rows, side, of_columns, plan.tile)
        return of_rows, (side, of_columns)

    shard = columns, start(columns)
    of_rows, (_, of_columns) = each_shard(visit, start(rows), shard, plan.axis_name, ring=plan.ring)
    if not plan.ring and axis_size(plan.axis_name) > 1:
        of_columns = _own_columns(of_columns, columns, plan.axis_name)
    found = finish(of_rows).logsumexp, finish(of_columns).logsumexp
    return found, (rows, columns, of_rows, of_columns)


def _crossed_backward(plan: Plan, saved, gradients: tuple[Array, Array]):
    rows, columns, of_rows, of_columns = saved
    by_row, by_column = (
        row_weights(running, Statistics(gradient))
        for running, gradient in zip((of_rows, of_columns), gradients, strict=True)
    )

    def weights(logits: Array, by_row: Any, by_column: Any) -> Array:
        of_rows = jnp.exp(logits - by_row.shift[:, None]) * by_row.factor[:, None]
        return of_rows + jnp.exp(logits - by_column.shift[None, :]) * by_column.factor[None, :]

    to_rows, to_columns, _ = _gradients(weights, (rows, by_row), (columns, by_column), plan)
    return Side(to_rows), Side(to_columns)


_crossed.defvjp(_crossed_forward, _crossed_backward)


def _accumulate(
    of_rows: Running, rows: Side, columns: Side, of_columns: Running, tile: int
) -> tuple[Running, Running]:
    """Running sums of rows [m] and of columns [n] after their logits."""
    counts = rows.values.shape[0], columns.values.shape[0]
    row_tiles, column_tiles = _cut((rows, of_rows), tile), _cut((columns, of_columns), tile)
    column_sides, of_columns = column_tiles

    def rows_of_a_tile(of_columns: Running, row) -> tuple[Running, Running]:
        def columns_of_a_tile(of_rows: Running, column) -> tuple[Running, Running]:
            logits = _logits(row[0], column[0])
            of_columns = accumulate_tile(column[1], logits, None, None, axis=0)
            return accumulate_tile(of_rows, logits, None, None), of_columns

        of_rows, of_columns = jax.lax.scan(columns_of_a_tile, row[1], (column_sides, of_columns))
        return of_columns, of_rows

    of_columns, of_rows = jax.lax.scan(rows_of_a_tile, of_columns, row_tiles)
    return join(of_rows, counts[0]), join(of_columns, counts[1])


def _own_columns(found: Running, columns: Side, axis_name: AxisName) -> Running:
    """Of the running sums [B] over each device's rows those of this device's columns over all."""
    largest = jax.lax.pmax(found.largest, axis_name)
    shift = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    total = sum_over(found.total * jnp.exp(found.largest - shift), axis_name)
    own = row_ids(columns.values, axis_name)
    return Running(largest[own], total[own])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softplus(rows: Side, columns: Side, plan: Plan) -> Array:
    return _softplus_forward(rows, columns, plan)[0]


def _softplus_forward(rows: Side, columns: Side, plan: Plan):
    row_tiles = _cut((rows,), plan.tile)

    def visit(total: Array, shard: tuple[Side]) -> tuple[Array, tuple[Side]]:
        column_tiles = _cut(shard, plan.tile)

        def rows_of_a_tile(row: tuple[Side]) -> Array:
            add = lambda total, column: (
                total + jnp.sum(jax.nn.softplus(_logits(row[0], column[0])), axis=1),
                None,
            )
            return jax.lax.scan(add, jnp.zeros_like(row[0].bias), column_tiles)[0]

        found = join(jax.lax.map(rows_of_a_tile, row_tiles), rows.values.shape[0])
        return total + found, shard

    zeros = jnp.zeros_like(rows.values[:, 0])
    total, _ = each_shard(visit, zeros, (columns,), plan.axis_name, ring=plan.ring)
    return total, (rows, columns)


def _softplus_backward(plan: Plan, saved, gradient: Array):
    rows, columns = saved
    weights = lambda logits, factor, _: jax.nn.sigmoid(logits) * factor[:, None]
    to_rows, to_columns, to_bias = _gradients(weights, (rows, gradient), (columns, None), plan)
    return Side(to_rows), Side(to_columns, bias=to_bias)


_softplus.defvjp(_softplus_forward, _softplus_backward)


def _gradients(
    weights: Callable[[Array, Any, Any], Array],
    rows: tuple[Side, Any],
    columns: tuple[Side, Any],
    plan: Plan,
) -> tuple[Array, Array, Array]:
    """Gradients at this device's rows [m, D], columns [n, D] and bias [n].

    Args:
      weights: a tile of logits and the coefficients of its rows and columns to the gradient at it.
      rows: the side of this device and coefficients [m].
      columns: the side of this device and coefficients [n].
      plan: how the matrix is traversed.
    """
    row_tiles = _cut(rows, plan.tile)

    def pull(row, column) -> tuple[Array, Array, Array]:
        logits = _logits(row[0], column[0])
        return pull_weights(weights(logits, row[1], column[1]), row[0], column[0])

    def of_shard(shard) -> tuple[Array, Array, Array]:
        counts = rows[0].values.shape[0], shard[0].values.shape[0]
        return backward_pairs(pull, row_tiles, _cut(shard, plan.tile), counts)

    return each_gradient(of_shard, rows[0], columns, plan)


def _cut(side: tuple[Any, ...], tile: int) -> tuple[Any, ...]:
    """A side and coefficients of its rows in tiles; the padding has a bias of -inf."""
    tiles = cut(side[0], tile, bias=True)
    return tiles, *fold(side[1:], tiles.values.shape[:2])


def _logits(rows: Side, columns: Side) -> Array:
    """Logits [m, n] of a tile, -inf for excluded pairs and for the padding of either side."""
    return tile_logits(rows, columns) + rows.bias[:, None]
