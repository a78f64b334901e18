"""Statistics of rows against columns, a tile at a time: what the streamed and the ring form are made of.

No array of rows x columns exists beyond one tile. Forward, a running maximum and running sums per row; backward, tiles
are computed again from these.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

Array = jax.Array
Tree = TypeVar("Tree")

TILE = 1024  # rows and columns of a tile: 4 MiB in float32, measured fastest on CPUs (experiments/benchmarks/loss.py)


class Side(NamedTuple):
    """Rows or columns [n, D], and what goes with each: an id, an additive bias and a label, [n] or None."""

    values: Array
    ids: Array | None = None
    bias: Array | None = None
    labels: Array | None = None


class Running(NamedTuple):
    """What each row [m] has met so far.

    largest: the largest logit; total: the sum of exponentials less it; matched and count: the sum and number of logits
    of columns of its label, None without labels; mean [m, D]: the sum of columns by their exponentials, expected: that of
    the logits themselves, None if unwanted.
    """

    largest: Array
    total: Array
    matched: Array | None = None
    count: Array | None = None
    mean: Array | None = None
    expected: Array | None = None


class Statistics(NamedTuple):
    """Of each row [m]: its log-sum-exp, and those of the others that were asked for.

    matched and count: sum and number of the logits of its label; mean [m, D]: softmax-weighted mean of the columns;
    expected: that of the logits.
    """

    logsumexp: Array
    matched: Array | None = None
    count: Array | None = None
    mean: Array | None = None
    expected: Array | None = None


class Weighing(NamedTuple):
    """What gives the gradient at a row's logits: of each row [m], and the gradient at its mean [m, D].

    exp(logit - shift) * (factor + scale * (<mean, column> - offset) + rise * (logit - level)), plus matched where labels
    are equal.
    """

    shift: Array
    factor: Array
    matched: Array | None = None
    scale: Array | None = None
    offset: Array | None = None
    mean: Array | None = None
    rise: Array | None = None
    level: Array | None = None


def begin(rows: Side, *, labelled: bool, mean: bool, expected: bool) -> Running:
    """Of rows that have met no column."""
    like = rows.values[:, 0]
    zeros = jnp.zeros_like(like)
    return Running(
        jnp.full_like(like, -jnp.inf),
        zeros,
        zeros if labelled else None,
        zeros if labelled else None,
        jnp.zeros_like(rows.values) if mean else None,
        zeros if expected else None,
    )


def finish(running: Running) -> Statistics:
    """Statistics of what the rows have met; a log-sum-exp of -inf and a mean of zero for rows that met nothing."""
    met, total = _met(running)
    logsumexp = jnp.where(met, jnp.log(total) + running.largest, -jnp.inf)
    mean = None if running.mean is None else running.mean / total[:, None]
    expected = None if running.expected is None else running.expected / total
    return Statistics(logsumexp, running.matched, running.count, mean, expected)


def weigh(running: Running, gradient: Statistics) -> Weighing:
    """How rows weigh their logits, given the gradient at their statistics.

    The largest logit and the sum are kept apart: at a temperature of 0.01 a log-sum-exp near 100 is rounded by 4e-6,
    which would be a relative error of every weight. Rows that met nothing weigh exp(... - inf) = 0.
    """
    met, total = _met(running)
    shift = jnp.where(met, running.largest, jnp.inf)
    weighing = Weighing(shift, gradient.logsumexp / total)
    if running.matched is not None:
        weighing = weighing._replace(matched=gradient.matched)
    if running.mean is not None:
        offset = jnp.sum(gradient.mean * running.mean, axis=1) / total
        weighing = weighing._replace(scale=1 / total, offset=offset, mean=gradient.mean)
    if running.expected is not None:
        rise, level = gradient.expected / total, running.expected / total - 1
        weighing = weighing._replace(rise=rise, level=level)
    return weighing


def _met(running: Running) -> tuple[Array, Array]:
    """Which rows have met a column, and sums that may be divided by."""
    met = running.total > 0
    return met, jnp.where(met, running.total, jnp.ones_like(running.total))


def meet(running: Running, rows: Side, columns: Side, tile: int) -> Running:
    """What rows [m] have met after these columns [n] too."""
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)

    def rows_of_a_tile(inputs: tuple[Side, Running]) -> Running:
        row_tile, before = inputs

        def columns_of_a_tile(before: Running, column_tile: Side) -> tuple[Running, None]:
            logits = scores(row_tile, column_tile)
            matching = matches(logits, row_tile, column_tile)
            return observe(before, logits, matching, column_tile.values), None

        return jax.lax.scan(columns_of_a_tile, before, column_tiles)[0]

    after = jax.lax.map(rows_of_a_tile, (row_tiles, fold(running, row_tiles.values.shape[:2])))
    return join(after, rows.values.shape[0])


def observe(
    before: Running, logits: Array, matching: Array | None, columns: Array | None, axis: int = 1
) -> Running:
    """What rows [m] have met after a tile of logits too, which has their columns along the axis.

    matching: where labels are equal, if asked for; columns [n, D], if their mean is.
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
        after = after._replace(matched=matched, count=before.count + number)
    if before.mean is not None:
        mean = before.mean * shrink[:, None] + matmul(exponentials, columns)
        after = after._replace(mean=mean)
    if before.expected is not None:
        total = jnp.sum(exponentials * finite(logits), axis=axis)
        after = after._replace(expected=before.expected * shrink + total)
    return after


def pull(rows: Side, columns: Side, weighing: Weighing, tile: int) -> tuple[Array, Array, Array]:
    """Gradients at rows [m, D], columns [n, D] and bias [n] from the logits of these rows and columns."""
    m, n = rows.values.shape[0], columns.values.shape[0]
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)
    weighings = cut_weighing(weighing, row_tiles.values.shape[:2])

    def columns_of_a_tile(to_rows: Array, column_tile: Side) -> tuple[Array, tuple[Array, Array]]:
        def rows_of_a_tile(carry, index):
            to_rows, to_columns, to_bias = carry
            row_tile, by_row = jax.tree.map(lambda leaf: leaf[index], (row_tiles, weighings))
            weights, shares = _weights(row_tile, column_tile, by_row)
            to_rows = to_rows.at[index].add(matmul(weights, column_tile.values))
            to_columns = to_columns + matmul(across(row_tile.values), weights)
            if shares is not None:
                to_columns = to_columns + matmul(across(by_row.mean), shares)
            return (to_rows, to_columns, to_bias + jnp.sum(weights, axis=0)), None

        nothing = jnp.zeros_like(column_tile.values.T), jnp.zeros_like(column_tile.bias)
        indices = jnp.arange(row_tiles.values.shape[0])
        carry = jax.lax.scan(rows_of_a_tile, (to_rows, *nothing), indices)[0]
        to_rows, to_columns, to_bias = carry
        return to_rows, (to_columns.T, to_bias)

    to_rows, (to_columns, to_bias) = jax.lax.scan(
        columns_of_a_tile, jnp.zeros_like(row_tiles.values), column_tiles
    )
    return join(to_rows, m), *join((to_columns, to_bias), n)


def pull_rows(rows: Side, columns: Side, weighing: Weighing, tile: int) -> Array:
    """The gradient at rows [m, D] alone, where nobody wants that at the columns: two products a tile in place of three."""
    row_tiles, column_tiles = cut(rows, tile), cut(columns, tile, bias=True)
    weighings = cut_weighing(weighing, row_tiles.values.shape[:2])
    weights = lambda row, column: _weights(row[0], column[0], row[1])[0]
    return pull_tiles(weights, (row_tiles, weighings), (column_tiles,), rows.values.shape[0])


def pull_tiles(weights: Callable[[Tree, Tree], Array], rows: Tree, columns: Tree, count: int) -> Array:
    """The gradient at the first so many rows [count, D] from weights of their logits, a tile at a time.

    Args:
      weights: takes what goes with a tile of rows and of columns, and gives the gradient [m, n] at its logits.
      rows: the rows in tiles, then what else weights takes of them.
      columns: likewise.
      count: of rows that are no filling.
    """

    def of_rows(row: Tree) -> Array:
        add = lambda to_rows, column: (to_rows + matmul(weights(row, column), column[0].values), None)
        return jax.lax.scan(add, jnp.zeros_like(row[0].values), columns)[0]

    return join(jax.lax.map(of_rows, rows), count)


def _weights(rows: Side, columns: Side, weighing: Weighing) -> tuple[Array, Array | None]:
    """The gradient [m, n] at a tile of logits, and the softmax's entries where the mean has a gradient."""
    logits = scores(rows, columns)
    exponentials = jnp.exp(logits - weighing.shift[:, None])
    weights, shares = exponentials * weighing.factor[:, None], None
    if weighing.matched is not None:
        matching = matches(logits, rows, columns)
        weights += jnp.where(matching, weighing.matched[:, None], jnp.zeros_like(logits))
    if weighing.mean is not None:
        shares = exponentials * weighing.scale[:, None]
        weights += shares * (matmul(weighing.mean, columns.values.T) - weighing.offset[:, None])
    if weighing.rise is not None:
        weights += exponentials * weighing.rise[:, None] * (finite(logits) - weighing.level[:, None])
    return weights, shares


def scores(rows: Side, columns: Side) -> Array:
    """Inner products [m, n] plus the columns' bias, -inf where ids are equal."""
    logits = matmul(rows.values, columns.values.T)
    if columns.bias is not None:
        logits = logits + columns.bias[None, :]
    if rows.ids is not None and columns.ids is not None:
        logits = jnp.where(rows.ids[:, None] != columns.ids[None, :], logits, -jnp.inf)
    return logits


def finite(logits: Array) -> Array:
    """Logits, and zero for pairs that are left out."""
    return jnp.where(jnp.isneginf(logits), jnp.zeros_like(logits), logits)


def matches(logits: Array, rows: Side, columns: Side) -> Array | None:
    """Where labels are equal [m, n], of the pairs that are not left out; None without labels."""
    if rows.labels is None:
        return None
    return (rows.labels[:, None] == columns.labels[None, :]) & ~jnp.isneginf(logits)


def matmul(x: Array, y: Array) -> Array:
    """Product in full float32 on every platform."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def across(x: Array) -> Array:
    """The transpose of [m, D], laid out anew.

    What w [m, n] gives back to its columns is w^T x. On CPUs that product takes twice the time of x^T w, whose transpose
    it is, and the compiler turns one into the other unless x^T is an array of its own.
    """
    return jax.lax.optimization_barrier(x.T)


def cut(side: Side, tile: int, *, bias: bool = False) -> Side:
    """The side in tiles; with bias every column has one, and the filling's is -inf, so that it weighs nothing."""
    n = side.values.shape[0]
    shape = tiling(n, tile)
    if bias:
        given = jnp.zeros(n, side.values.dtype) if side.bias is None else side.bias
        side = side._replace(bias=pad(given, shape[0] * shape[1], -jnp.inf))
    return fold(side, shape)


def cut_weighing(weighing: Weighing, shape: tuple[int, int]) -> Weighing:
    """The weighing in tiles; filling weighs nothing."""
    return fold(weighing._replace(shift=pad(weighing.shift, shape[0] * shape[1], jnp.inf)), shape)


def tiling(n: int, tile: int) -> tuple[int, int]:
    """How many equal tiles of about so many rows hold n, and the rows of each, [count, height].

    A little more than one tile stays one: of a single tile the compiler keeps the logits for the gradient.
    """
    count = max(1, round(n / tile))
    return count, -(-n // count)


def fold(tree: Tree, shape: tuple[int, int]) -> Tree:
    """Rows in tiles, filled with zeros at the end: [n, ...] to [count, height, ...]."""
    count, height = shape
    cut_leaf = lambda leaf: pad(leaf, count * height).reshape(count, height, *leaf.shape[1:])
    return jax.tree.map(cut_leaf, tree)


def join(tiles: Tree, length: int) -> Tree:
    """The first so many rows of what was cut: [count, height, ...] to [length, ...]."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:length], tiles)


def pad(array: Array, length: int, value: float = 0) -> Array:
    """The array with rows of a value after its own, up to a length."""
    missing = length - array.shape[0]
    widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, widths, constant_values=value) if missing else array
