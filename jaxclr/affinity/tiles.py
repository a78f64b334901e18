"""Statistics of rows against columns, a tile at a time: the core of "streamed" and "ring".

No array of rows x columns is larger than one tile. The forward pass keeps a running maximum and
running sums for each row. The backward pass computes the tiles again from these.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = TypeVar("Tree")
Optional = Any  # an array, or None if not asked for

# Rows and columns of a tile: 4 MiB in float32, measured fastest on CPUs by
# experiments/benchmarks/loss.py.
TILE = 1024


class Side(NamedTuple):
    """Rows or columns [n, D] with an id, an additive bias and a label for each, [n] or None."""

    values: Array
    ids: Optional = None
    bias: Optional = None
    labels: Optional = None


class Running(NamedTuple):
    """Running sums of each row [m] over the columns so far.

    Attributes:
      largest: largest logit.
      total: sum of the exponentials of the logits less the largest.
      matched: sum of the logits of columns with the row's label; None without labels.
      matched_count: number of these columns.
      mean: sum of the columns weighted by the exponentials, [m, D]; None if not asked for.
      expected: sum of the logits weighted by the exponentials; None if not asked for.
    """

    largest: Array
    total: Array
    matched: Optional = None
    matched_count: Optional = None
    mean: Optional = None
    expected: Optional = None


class Statistics(NamedTuple):
    """Statistics of each row [m] over all columns; None if not asked for.

    Attributes:
      logsumexp: log-sum-exp of the logits.
      matched: sum of the logits of columns with the row's label.
      matched_count: number of these columns.
      mean: softmax-weighted mean of the columns, [m, D].
      expected: softmax-weighted mean of the logits.
    """

    logsumexp: Array
    matched: Optional = None
    matched_count: Optional = None
    mean: Optional = None
    expected: Optional = None


class RowWeights(NamedTuple):
    """Coefficients of the gradient at the logits of each row [m].

    `mean` [m, D] is the gradient at the mean of the row. The gradient at a logit is `matched` where
    labels are equal, plus exp(logit - shift) times factor + mean_scale * (<mean, column> -
    mean_offset) + logit_scale * (logit - logit_offset).
    """

    shift: Array
    factor: Array
    matched: Optional = None
    mean_scale: Optional = None
    mean_offset: Optional = None
    mean: Optional = None
    logit_scale: Optional = None
    logit_offset: Optional = None


def initial(rows: Side, *, labeled: bool, mean: bool, expected: bool) -> Running:
    """The initial state, before any column."""
    like = rows.values[:, 0]
    zeros = jnp.zeros_like(like)
    return Running(
        jnp.full_like(like, -jnp.inf),
        zeros,
        zeros if labeled else None,
        zeros if labeled else None,
        jnp.zeros_like(rows.values) if mean else None,
        zeros if expected else None,
    )


def finish(running: Running) -> Statistics:
    """Statistics from running sums; -inf and a mean of zero for a row without columns."""
    nonempty, total = _safe_total(running)
    logsumexp = jnp.where(nonempty, jnp.log(total) + running.largest, -jnp.inf)
    mean = None if running.mean is None else running.mean / total[:, None]
    expected = None if running.expected is None else running.expected / total
    return Statistics(logsumexp, running.matched, running.matched_count, mean, expected)


def row_weights(running: Running, gradient: Statistics) -> RowWeights:
    """Coefficients of the gradient at the logits, given the gradient at the statistics.

    The largest logit and the sum stay apart: at a temperature of 0.01 a log-sum-exp near 100 is
    rounded by 4e-6, which would be a relative error of every weight. A row without columns has the
    weights exp(... - inf) = 0.
    """
    nonempty, total = _safe_total(running)
    shift = jnp.where(nonempty, running.largest, jnp.inf)
    weights = RowWeights(shift, gradient.logsumexp / total)
    if running.matched is not None:
        weights = weights._replace(matched=gradient.matched)
    if running.mean is not None:
        offset = jnp.sum(gradient.mean * running.mean, axis=1) / total
        weights = weights._replace(mean_scale=1 / total, mean_offset=offset, mean=gradient.mean)
    if running.expected is not None:
        weights = weights._replace(
            logit_scale=gradient.expected / total, logit_offset=running.expected / total - 1
        )
    return weights


def _safe_total(running: Running) -> tuple[Array, Array]:
    """Which rows have a column, and their totals, 1 for the other rows."""
    nonempty = running.total > 0
    return nonempty, jnp.where(nonempty, running.total, jnp.ones_like(running.total))


def accumulate(running: Running, rows: Side, columns: Side, tile: int) -> Running:
    """Running sums of rows [m] after these columns [n]."""
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)

    def rows_of_a_tile(inputs: tuple[Side, Running]) -> Running:
        row_tile, before = inputs

        def columns_of_a_tile(before: Running, column_tile: Side) -> tuple[Running, None]:
            logits = tile_logits(row_tile, column_tile)
            matching = same_label(logits, row_tile, column_tile)
            return accumulate_tile(before, logits, matching, column_tile.values), None

        return jax.lax.scan(columns_of_a_tile, before, column_tiles)[0]

    after = jax.lax.map(rows_of_a_tile, (row_tiles, fold(running, row_tiles.values.shape[:2])))
    return join(after, rows.values.shape[0])


def accumulate_tile(
    before: Running, logits: Array, matching: Optional, columns: Optional, axis: int = 1
) -> Running:
    """Running sums of rows [m] after a tile of logits.

    Args:
      before: the running sums.
      logits: [m, n].
      matching: where labels are equal, [m, n]; None without labels.
      columns: [n, D]; None if their mean is not asked for.
      axis: the axis of the logits along which the columns lie.
    """
    largest = jnp.maximum(before.largest, jnp.max(logits, axis=axis))
    shift = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    shrink = jnp.exp(before.largest - shift)
    exponentials = jnp.exp(logits - jnp.expand_dims(shift, axis))
    after = Running(largest, before.total * shrink + jnp.sum(exponentials, axis=axis))
    if before.matched is not None:
        found = jnp.where(matching, logits, jnp.zeros_like(logits))
        number = jnp.sum(matching, axis=axis, dtype=logits.dtype)
        matched = before.matched + jnp.sum(found, axis=axis)
        after = after._replace(matched=matched, matched_count=before.matched_count + number)
    if before.mean is not None:
        mean = before.mean * shrink[:, None] + matmul(exponentials, columns)
        after = after._replace(mean=mean)
    if before.expected is not None:
        total = jnp.sum(exponentials * finite(logits), axis=axis)
        after = after._replace(expected=before.expected * shrink + total)
    return after


def backward(
    rows: Side, columns: Side, by_row: RowWeights, tile: int
) -> tuple[Array, Array, Array]:
    """Gradients at rows [m, D], columns [n, D] and bias [n] through their logits."""
    row_tiles = cut(rows, tile)

    def pull(row: tuple[Side, RowWeights], column: tuple[Side]) -> tuple[Array, Array, Array]:
        (values, by_row), (column_tile,) = row, column
        weights, shares = _weights(values, column_tile, by_row)
        to_rows, to_columns, to_bias = pull_weights(weights, values, column_tile)
        if shares is not None:
            to_columns = to_columns + matmul(transposed(by_row.mean), shares)
        return to_rows, to_columns, to_bias

    return backward_pairs(
        pull,
        (row_tiles, cut_row_weights(by_row, row_tiles.values.shape[:2])),
        (cut(columns, tile, bias=True),),
        (rows.values.shape[0], columns.values.shape[0]),
    )


def pull_weights(weights: Array, rows: Side, columns: Side) -> tuple[Array, Array, Array]:
    """From the gradient [m, n] at a tile of logits that at rows, columns transposed, and bias."""
    to_columns = matmul(transposed(rows.values), weights)
    return matmul(weights, columns.values), to_columns, jnp.sum(weights, axis=0)


def backward_pairs(
    pull: Callable[[Any, Any], tuple[Array, Array, Array]],
    rows: Any,
    columns: Any,
    counts: tuple[int, int],
) -> tuple[Array, Array, Array]:
    """Gradients at rows [m, D], columns [n, D] and bias [n], a tile of logits at a time.

    Args:
      pull: (row tile, column tile) to the gradients at its rows, its columns transposed, and their
        bias.
      rows: a tuple of arrays in tiles, the side of the rows first.
      columns: likewise of the columns.
      counts: m and n, without the padding.
    """

    def columns_of_a_tile(to_rows: Array, column: Any) -> tuple[Array, tuple[Array, Array]]:
        def rows_of_a_tile(carry, index):
            to_rows, to_columns, to_bias = carry
            row = jax.tree.map(lambda leaf: leaf[index], rows)
            at_rows, at_columns, at_bias = pull(row, column)
            return (
                to_rows.at[index].add(at_rows),
                to_columns + at_columns,
                to_bias + at_bias,
            ), None

        zeros = jnp.zeros_like(column[0].values.T), jnp.zeros_like(column[0].bias)
        indices = jnp.arange(rows[0].values.shape[0])
        carry = jax.lax.scan(rows_of_a_tile, (to_rows, *zeros), indices)[0]
        to_rows, to_columns, to_bias = carry
        return to_rows, (to_columns.T, to_bias)

    to_rows, (to_columns, to_bias) = jax.lax.scan(
        columns_of_a_tile, jnp.zeros_like(rows[0].values), columns
    )
    return join(to_rows, counts[0]), *join((to_columns, to_bias), counts[1])


def backward_rows(rows: Side, columns: Side, by_row: RowWeights, tile: int) -> Array:
    """The gradient at rows [m, D] alone: two matrix products for each tile instead of three."""
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)
    weight_tiles = cut_row_weights(by_row, row_tiles.values.shape[:2])
    weights = lambda row, column: _weights(row[0], column[0], row[1])[0]
    return backward_tiles(weights, (row_tiles, weight_tiles), (column_tiles,), rows.values.shape[0])


def backward_tiles(
    weights: Callable[[Any, Any], Array], rows: Any, columns: Any, count: int
) -> Array:
    """The gradient at rows [count, D] from the gradient at their logits, a tile at a time.

    Args:
      weights: (row tile, column tile) to the gradient [m, n] at the logits of the tile.
      rows: a tuple of arrays in tiles, the rows first.
      columns: likewise of the columns.
      count: number of rows without the padding.
    """

    def of_rows(row: Any) -> Array:
        add = lambda to_rows, column: (
            to_rows + matmul(weights(row, column), column[0].values),
            None,
        )
        return jax.lax.scan(add, jnp.zeros_like(row[0].values), columns)[0]

    return join(jax.lax.map(of_rows, rows), count)


def _weights(rows: Side, columns: Side, by_row: RowWeights) -> tuple[Array, Optional]:
    """The gradient [m, n] at a tile of logits, and the softmax if the mean has a gradient."""
    logits = tile_logits(rows, columns)
    exponentials = jnp.exp(logits - by_row.shift[:, None])
    weights, shares = exponentials * by_row.factor[:, None], None
    if by_row.matched is not None:
        matching = same_label(logits, rows, columns)
        weights += jnp.where(matching, by_row.matched[:, None], jnp.zeros_like(logits))
    if by_row.mean is not None:
        shares = exponentials * by_row.mean_scale[:, None]
        weights += shares * (matmul(by_row.mean, columns.values.T) - by_row.mean_offset[:, None])
    if by_row.logit_scale is not None:
        centered = finite(logits) - by_row.logit_offset[:, None]
        weights += exponentials * by_row.logit_scale[:, None] * centered
    return weights, shares


def tile_logits(rows: Side, columns: Side) -> Array:
    """Inner products [m, n] plus the columns' bias, -inf where ids are equal."""
    logits = matmul(rows.values, columns.values.T)
    if columns.bias is not None:
        logits = logits + columns.bias[None, :]
    if rows.ids is not None and columns.ids is not None:
        logits = jnp.where(rows.ids[:, None] != columns.ids[None, :], logits, -jnp.inf)
    return logits


def finite(logits: Array) -> Array:
    """The logits, zero for excluded pairs."""
    return jnp.where(jnp.isneginf(logits), jnp.zeros_like(logits), logits)


def same_label(logits: Array, rows: Side, columns: Side) -> Optional:
    """Where labels are equal and the pair is not excluded, [m, n]; None without labels."""
    if rows.labels is None:
        return None
    return (rows.labels[:, None] == columns.labels[None, :]) & ~jnp.isneginf(logits)


def matmul(x: Array, y: Array) -> Array:
    """Product in full float32 on every platform."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def transposed(x: Array) -> Array:
    """The transpose of [m, D] as an array of its own.

    The gradient at the columns is w^T x with w [m, n]. On CPUs this product takes twice the time of
    x^T w, its transpose, and the compiler replaces one by the other unless x^T is an array of its
    own.
    """
    return jax.lax.optimization_barrier(x.T)


def cut(side: Side, tile: int, *, bias: bool = False) -> Side:
    """The side in tiles. With bias, every column has one, and that of the padding is -inf."""
    n = side.values.shape[0]
    shape = tiling(n, tile)
    if bias:
        given = jnp.zeros(n, side.values.dtype) if side.bias is None else side.bias
        side = side._replace(bias=pad(given, shape[0] * shape[1], -jnp.inf))
    return fold(side, shape)


def cut_row_weights(by_row: RowWeights, shape: tuple[int, ...]) -> RowWeights:
    """The coefficients in tiles. Those of the padding give zero weights."""
    return fold(by_row._replace(shift=pad(by_row.shift, shape[0] * shape[1], jnp.inf)), shape)


def tiling(n: int, tile: int) -> tuple[int, int]:
    """Number and height of equal tiles of about `tile` rows that hold n rows.

    A little more than one tile stays one, because the compiler keeps the logits of a single tile
    for the gradient.
    """
    count = max(1, round(n / tile))
    return count, -(-n // count)


def fold(tree: Tree, shape: tuple[int, ...]) -> Tree:
    """Rows in tiles, padded with zeros at the end: [n, ...] to [count, height, ...]."""
    count, height = shape
    cut_leaf = lambda leaf: pad(leaf, count * height).reshape(count, height, *leaf.shape[1:])
    return jax.tree.map(cut_leaf, tree)


def join(tiles: Tree, length: int) -> Tree:
    """The first `length` rows of tiles: [count, height, ...] to [length, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:length], tiles)


def pad(array: Array, length: int, value: float = 0) -> Array:
    """The array padded at the end with rows of a value, up to a length."""
    missing = length - array.shape[0]
    widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, widths, constant_values=value) if missing else array
