"""The two sums over pairs that carry every loss of rows against columns, and the diagonal.

Pairs to leave out are told by ids, one per row and one per column, never by a [b, B] array.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxclr.affinity.checks import check_choice
from jaxclr.affinity.collectives import AxisName, batch_size, gather_rows, row_ids
from jaxclr.affinity.streamed import Plan, streamed_logsumexp, symmetric_logsumexp
from jaxclr.affinity.tiles import TILE, Side, cut, matmul, scores

Array = jax.Array
Ids = tuple[Array, Array]
Implementation = Literal["auto", "dense", "streamed", "ring"]

IMPLEMENTATIONS = ("auto", "dense", "streamed", "ring")
# Below so many logits on a device one dense tile is the fastest, above so many bytes of gathered columns and their
# gradients a ring saves what matters; measured by experiments/benchmarks/loss.py and memory.py.
_DENSE_LOGITS = 2**18
_RING_BYTES = 2**30


def positives(rows: Array, columns: Array) -> Array:
    """The diagonal of the affinity matrix: inner products of row i with column i, [b, D] x2 to [b]."""
    return jnp.sum(rows * columns, axis=-1)


def row_logsumexp(
    rows: Array,
    columns: Array,
    *,
    exclude: Ids | None = None,
    column_bias: Array | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> Array:
    r"""Log-sum-exp of every row of the affinity matrix, over the columns of all devices.

    .. math:: r_i = \log \sum_{j \,:\, u_i \ne v_j} \exp(\langle x_i, y_j \rangle + c_j)

    Args:
      rows: [b, D], already divided by the temperature.
      columns: [b', D], this device's columns; b' need not equal b.
      exclude: ids (u [b], v [b']); a pair of equal ids is left out.
      column_bias: c [b'], added to each column (the logarithm of its weight).
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      implementation: "dense" forms [b, B] logits; "streamed" gathers the columns and forms a tile at a time; "ring" passes
        the columns from device to device instead of gathering them; "auto" takes dense for few logits, the ring for
        columns beyond 1 GiB, else streamed. All are exact.
      tile: rows and columns of a tile; None for what was measured fastest.

    Returns:
      [b]; -inf for a row whose every column is left out.
    """
    how = choose(implementation, rows, columns, axis_name)
    of_rows, of_columns = (None, None) if exclude is None else exclude
    row_side, column_side = Side(rows, of_rows), Side(columns, of_columns, column_bias)
    if how == "dense":
        every = jax.tree.map(lambda leaf: gather_rows(leaf, axis_name), column_side)
        return _logsumexp(scores(row_side, every))
    return streamed_logsumexp(row_side, column_side, _plan(how, tile, axis_name))


def self_logsumexp(
    rows: Array,
    *,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> Array:
    r"""Log-sum-exp of every row over all other rows of all devices.

    .. math:: r_i = \log \sum_{j \ne i} \exp \langle x_i, x_j \rangle

    The same as `row_logsumexp` of rows against themselves without their diagonal, with a cheaper gradient: the matrix is
    symmetric, so that one tile serves both its sides.

    Args:
      rows: [b, D], already divided by the square root of the temperature.
      axis_name: mapped axis over which the rows are spread; None if these are all of them.
      implementation: as of `row_logsumexp`.
      tile: rows and columns of a tile; None for what was measured fastest.

    Returns:
      [b]; -inf for a row that is the only one.
    """
    how = choose(implementation, rows, rows, axis_name)
    ids = row_ids(rows, axis_name)
    if how == "dense":
        return row_logsumexp(
            rows, rows, exclude=(ids, ids), axis_name=axis_name, implementation="dense"
        )
    return symmetric_logsumexp(Side(rows, ids), _plan(how, tile, axis_name))


def pair_sum(
    f: Callable[..., Array],
    rows: Array,
    columns: Array,
    *,
    row_values: tuple[Array, ...] = (),
    column_values: tuple[Array, ...] = (),
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    tile: int | None = None,
) -> Array:
    r"""Sum of a scalar function over this device's rows and the columns of all devices, a tile at a time.

    .. math:: \sum_{i,\, j \,:\, u_i \ne v_j} f(\langle x_i, y_j \rangle, p_i, \dots, q_j, \dots)

    Tiles are computed again backward, so that neither direction holds more than one.

    Args:
      f: elementwise function of a tile of inner products [m, n], then of each row value [m, 1] and
        each column value [1, n]; finite for every pair, also those left out.
      rows: [b, D].
      columns: [b', D], this device's columns.
      row_values: arrays [b] that f takes after the inner products.
      column_values: arrays [b'] that f takes last.
      exclude: ids (u [b], v [b']); a pair of equal ids is left out.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      tile: rows and columns of a tile; None for the default.

    Returns:
      A scalar; its sum over devices is the sum over all pairs of the global batch.
    """
    tile = tile or TILE
    of_rows, of_columns = (None, None) if exclude is None else exclude
    gathered = jax.tree.map(
        lambda leaf: gather_rows(leaf, axis_name), (columns, of_columns, column_values)
    )
    row_tiles = _tiles(rows, of_rows, row_values, tile)
    column_tiles = _tiles(*gathered, tile)

    @jax.checkpoint
    def of_a_tile(row_tile, column_tile) -> Array:
        row_side, row_real, row_facts = row_tile
        column_side, column_real, column_facts = column_tile
        products = matmul(row_side.values, column_side.values.T)
        values = f(
            products,
            *(fact[:, None] for fact in row_facts),
            *(fact[None, :] for fact in column_facts),
        )
        kept = row_real[:, None] & column_real[None, :]
        if row_side.ids is not None:
            kept &= row_side.ids[:, None] != column_side.ids[None, :]
        return jnp.sum(jnp.where(kept, values, jnp.zeros_like(values)))

    def of_a_row(total: Array, row_tile) -> tuple[Array, None]:
        add = lambda total, column_tile: (total + of_a_tile(row_tile, column_tile), None)
        return jax.lax.scan(add, total, column_tiles)[0], None

    return jax.lax.scan(of_a_row, jnp.zeros((), rows.dtype), row_tiles)[0]


def choose(implementation: str, rows: Array, columns: Array, axis_name: AxisName) -> str:
    """The implementation that "auto" stands for; any other stands for itself.

    Raises:
      ValueError: there is no such implementation.
    """
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    if implementation != "auto":
        return implementation
    every = batch_size(columns, axis_name)
    if rows.shape[0] * every <= _DENSE_LOGITS:
        return "dense"
    gathered = 2 * every * columns.shape[1] * columns.dtype.itemsize
    return "ring" if axis_name is not None and gathered > _RING_BYTES else "streamed"


def _plan(how: str, tile: int | None, axis_name: AxisName) -> Plan:
    # Who takes a ring takes it for its memory: tiles of a quarter cost it little time.
    ring = how == "ring"
    return Plan(tile or (TILE // 2 if ring else TILE), axis_name, ring)


def _logsumexp(logits: Array) -> Array:
    """Of each row; -inf, with zero gradient, where all of it is -inf."""
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    met = ~jnp.isneginf(largest)
    shift = jnp.where(met, largest, jnp.zeros_like(largest))
    total = jnp.sum(jnp.exp(logits - shift[:, None]), axis=1)
    return jnp.where(met, jnp.log(jnp.where(met, total, jnp.ones_like(total))) + shift, -jnp.inf)


def _tiles(values: Array, ids: Array | None, facts: tuple[Array, ...], tile: int):
    """A side cut in tiles, which of their rows are real, and the facts beside them."""
    sides = [cut(Side(values, ids), tile), *(cut(Side(fact), tile) for fact in facts)]
    real = cut(Side(jnp.ones(values.shape[0], bool)), tile).values
    return sides[0], real, tuple(side.values for side in sides[1:])
