"""Sums, maxima and log-sum-exps of functions of pairs, a tile at a time.

A pair function takes a tile of inner products [m, n] of rows and columns, then the row values, each
[m, 1, ...], then the column values, each [1, n, ...]. It is elementwise in m and n. It must be
finite for every pair, also for excluded ones; for a maximum or a log-sum-exp it may be a constant
-inf, which excludes the pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, gather_rows
from jaxclr.affinity.logsumexp import Ids
from jaxclr.affinity.tiles import TILE, fold, join, matmul, tiling

Array = jax.Array
Tree = Any
PairFunction = Callable[..., Tree]


def row_sum(
    f: PairFunction,
    rows: Array,
    columns: Array,
    *,
    row_values: tuple[Array, ...] = (),
    column_values: tuple[Array, ...] = (),
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    tile: int | None = None,
) -> Tree:
    r"""Sum of a pair function over the columns of all devices, for each row of this one.

    .. math:: s_i = \sum_{j \,:\, u_i \ne v_j} f(\langle x_i, y_j \rangle, p_i, \dots, q_j, \dots)

    The backward pass computes tiles again: neither pass holds more than one.

    Args:
      f: pair function (see the module); gives one [m, n] or a tree of them.
      rows: [b, D].
      columns: [b', D], this device's columns.
      row_values: arrays [b, ...] that f takes after the inner products, as [m, 1, ...].
      column_values: arrays [b', ...] that f takes last, as [1, n, ...].
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      tile: rows and columns of a tile; None for the default.

    Returns:
      [b], or a tree of them as f gives.
    """

    @jax.checkpoint
    def of_a_tile(row_tile: _Tile, column_tile: _Tile) -> Tree:
        values, kept = _evaluate(f, row_tile, column_tile)
        return jax.tree.map(
            lambda v: jnp.sum(jnp.where(kept, v, jnp.zeros_like(v)), axis=1), values
        )

    def of_rows(row_tile: _Tile, column_tiles: _Tile) -> Tree:
        shapes = jax.eval_shape(
            of_a_tile, row_tile, jax.tree.map(lambda leaf: leaf[0], column_tiles)
        )
        zeros = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), shapes)
        add = lambda total, tile: (jax.tree.map(jnp.add, total, of_a_tile(row_tile, tile)), None)
        return jax.lax.scan(add, zeros, column_tiles)[0]

    tiles = _tiles(rows, columns, row_values, column_values, exclude, axis_name, tile or TILE)
    return _by_rows(of_rows, *tiles, rows.shape[0])


def pair_sum(f: PairFunction, rows: Array, columns: Array, **options: Any) -> Tree:
    r"""Sum of a pair function over this device's rows and the columns of all devices.

    .. math:: \sum_i s_i, \qquad s = \text{row_sum}(f, \dots)

    Args:
      f: pair function.
      rows: [b, D].
      columns: [b', D], this device's columns.
      **options: those of `row_sum`.

    Returns:
      A scalar, or a tree of them as f gives; its sum over devices is the sum over all pairs of the
      global batch.
    """
    return jax.tree.map(jnp.sum, row_sum(f, rows, columns, **options))


class Largest(NamedTuple):
    """Largest value of each row [b] and the batch index of its column; -inf and 0 if none."""

    value: Array
    column: Array


def row_max(
    f: PairFunction,
    rows: Array,
    columns: Array,
    *,
    row_values: tuple[Array, ...] = (),
    column_values: tuple[Array, ...] = (),
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    tile: int | None = None,
) -> Largest:
    r"""Largest value of a pair function in each row, and its column; constant in the gradient.

    To differentiate the largest value, compute it again from the column of that index.

    Args:
      f: pair function.
      rows: [b, D].
      columns: [b', D], this device's columns.
      row_values, column_values, exclude, axis_name, tile: as of `row_sum`.

    Returns:
      value [b] and column int32 [b], the first one of several.
    """
    tiles = _tiles(rows, columns, row_values, column_values, exclude, axis_name, tile or TILE)

    def of_rows(row_tile: _Tile, column_tiles: _Tile) -> Largest:
        def step(before: Largest, inputs: tuple[_Tile, Array]) -> tuple[Largest, None]:
            column_tile, first = inputs
            values, kept = _evaluate(f, row_tile, column_tile)
            # The function may close over parameters: its values are stopped too.
            values = jnp.where(kept, jax.lax.stop_gradient(values), -jnp.inf)
            largest = jnp.max(values, axis=1)
            index = first + jnp.argmax(values, axis=1).astype(jnp.int32)
            greater = largest > before.value
            return Largest(
                *(jnp.where(greater, *p) for p in zip((largest, index), before, strict=True))
            ), None

        like = row_tile.rows[:, 0]
        state = Largest(jnp.full_like(like, -jnp.inf), jnp.zeros(like.shape, jnp.int32))
        count, height = column_tiles.real.shape
        firsts = jnp.arange(count, dtype=jnp.int32) * height
        return jax.lax.scan(step, state, (column_tiles, firsts))[0]

    return _by_rows(of_rows, *tiles, rows.shape[0])


def row_logsumexp_of(
    f: PairFunction,
    rows: Array,
    columns: Array,
    *,
    row_values: tuple[Array, ...] = (),
    column_values: tuple[Array, ...] = (),
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    tile: int | None = None,
) -> Array:
    r"""Log-sum-exp of a pair function over the columns of all devices, for each row of this one.

    .. math:: r_i = \log \sum_{j \,:\, u_i \ne v_j}
       \exp f(\langle x_i, y_j \rangle, p_i, \dots, q_j, \dots)

    For inner products alone `row_logsumexp` is faster.

    Args:
      f: pair function; gives one [m, n].
      rows: [b, D].
      columns: [b', D], this device's columns.
      row_values, column_values, exclude, axis_name, tile: as of `row_sum`.

    Returns:
      [b]; -inf for a row whose every column is excluded.
    """

    @jax.checkpoint
    def accumulate(
        running: tuple[Array, Array], row_tile: _Tile, column_tile: _Tile
    ) -> tuple[Array, Array]:
        before, total = running
        values, kept = _evaluate(f, row_tile, column_tile)
        values = jnp.where(kept, values, -jnp.inf)
        largest = jnp.maximum(before, jnp.max(jax.lax.stop_gradient(values), axis=1))
        shift = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
        exponentials = jnp.exp(values - shift[:, None])
        return largest, total * jnp.exp(before - shift) + jnp.sum(exponentials, axis=1)

    def of_rows(row_tile: _Tile, column_tiles: _Tile) -> Array:
        like = row_tile.rows[:, 0]
        state = jnp.full_like(like, -jnp.inf), jnp.zeros_like(like)
        step = lambda running, tile: (accumulate(running, row_tile, tile), None)
        largest, total = jax.lax.scan(step, state, column_tiles)[0]
        # A row without columns has a largest value of -inf.
        return jnp.log(jnp.where(total > 0, total, jnp.ones_like(total))) + largest

    tiles = _tiles(rows, columns, row_values, column_values, exclude, axis_name, tile or TILE)
    return _by_rows(of_rows, *tiles, rows.shape[0])


class _Tile(NamedTuple):
    """Rows or columns [n, D] of a tile with mask, ids and values for each; or stacked tiles."""

    rows: Array
    real: Array
    ids: Array | None
    values: tuple[Array, ...]


def _evaluate(f: PairFunction, rows: _Tile, columns: _Tile) -> tuple[Tree, Array]:
    """The function [m, n] of the pairs of a tile, and which pairs count."""
    values = f(
        matmul(rows.rows, columns.rows.T),
        *(value[:, None] for value in rows.values),
        *(value[None, :] for value in columns.values),
    )
    kept = rows.real[:, None] & columns.real[None, :]
    if rows.ids is not None and columns.ids is not None:
        kept &= rows.ids[:, None] != columns.ids[None, :]
    return values, kept


def _tiles(
    rows: Array,
    columns: Array,
    row_values: tuple[Array, ...],
    column_values: tuple[Array, ...],
    exclude: Ids | None,
    axis_name: AxisName,
    tile: int,
) -> tuple[_Tile, _Tile]:
    """This device's rows and all devices' columns, in tiles."""
    of_rows, of_columns = exclude or (None, None)
    local = _Tile(columns, jnp.ones(columns.shape[0], bool), of_columns, column_values)
    gathered = jax.tree.map(lambda leaf: gather_rows(leaf, axis_name), local)
    own = _Tile(rows, jnp.ones(rows.shape[0], bool), of_rows, row_values)
    cut = lambda side: fold(side, tiling(side.rows.shape[0], tile))
    return cut(own), cut(gathered)


def _by_rows(
    of_rows: Callable[[_Tile, _Tile], Tree], row_tiles: _Tile, column_tiles: _Tile, count: int
) -> Tree:
    """The function for every tile of rows and all columns; the first `count` results."""
    found = jax.lax.map(lambda row_tile: of_rows(row_tile, column_tiles), row_tiles)
    return join(found, count)
