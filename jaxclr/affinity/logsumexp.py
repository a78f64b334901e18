"""Log-sum-exps of the rows of the affinity matrix, and statistics of the same pass.

Ids, one per row and one per column, say which pairs are excluded and which have the same label; no
[b, B] mask is needed.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxclr.affinity.checks import check_choice
from jaxclr.affinity.collectives import AxisName, batch_size, gather_rows, row_ids
from jaxclr.affinity.streamed import Plan, streamed
from jaxclr.affinity.symmetric import symmetric
from jaxclr.affinity.tiles import TILE, Side, Statistics, finite, matmul, same_label, tile_logits

Array = jax.Array
Ids = tuple[Array, Array]
Implementation = Literal["auto", "dense", "streamed", "ring"]
"""How logits are formed; all give the same values. See `row_logsumexp`."""

IMPLEMENTATIONS = ("auto", "dense", "streamed", "ring")
# Up to so many logits on a device one dense tile is fastest. Beyond so many bytes of gathered
# columns and their gradients the memory that a ring saves matters. Measured by
# experiments/benchmarks/loss.py and memory.py.
_DENSE_LOGITS = 2**18
_RING_BYTES = 2**30


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

    >>> jaxclr.affinity.row_logsumexp(jnp.zeros((2, 4)), jnp.zeros((2, 4))).round(3)  # log 2
    Array([0.693, 0.693], dtype=float32)

    Args:
      rows: [b, D], already divided by the temperature.
      columns: [b', D], this device's columns; b' need not equal b.
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      column_bias: c [b'], added to each column (the logarithm of its weight).
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      implementation: "dense" forms [b, B] logits; "streamed" gathers the columns and forms a tile
        at a time; "ring" passes the columns from device to device instead of gathering them; "auto"
        selects dense for few logits, ring for columns beyond 1 GiB, else streamed. All are exact.
      tile: rows and columns of a tile; None for the default.

    Returns:
      [b]; -inf for a row whose every column is excluded.
    """
    of_rows, of_columns = exclude or (None, None)
    sides = Side(rows, of_rows), Side(columns, of_columns, column_bias)
    return _statistics(*sides, axis_name, implementation, tile).logsumexp


def labeled_logsumexp(
    rows: Array,
    columns: Array,
    *,
    labels: Ids,
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> tuple[Array, Array, Array]:
    r"""`row_logsumexp`, and in the same pass sum and number of the logits of the row's label.

    .. math:: r_i, \qquad m_i = \sum_{j \in P(i)} \langle x_i, y_j \rangle,
       \qquad n_i = |P(i)|, \qquad P(i) = \{ j : l_i = l'_j,\; u_i \ne v_j \}

    Args:
      rows: [b, D], already divided by the temperature.
      columns: [b', D], this device's columns.
      labels: (l [b], l' [b']).
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      implementation: as of `row_logsumexp`.
      tile: rows and columns of a tile; None for the default.

    Returns:
      r, m and n, [b] each, n in the type of the rows.
    """
    of_rows, of_columns = exclude or (None, None)
    sides = Side(rows, of_rows, labels=labels[0]), Side(columns, of_columns, labels=labels[1])
    found = _statistics(*sides, axis_name, implementation, tile)
    return found.logsumexp, found.matched, found.matched_count


def attention(
    rows: Array,
    columns: Array,
    *,
    exclude: Ids | None = None,
    column_bias: Array | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> tuple[Array, Array]:
    r"""`row_logsumexp`, and in the same pass the softmax-weighted mean of the columns.

    .. math:: r_i, \qquad m_i = \sum_j p_{ij} y_j,
       \qquad p_{ij} = \exp(\langle x_i, y_j \rangle + c_j - r_i)

    Means of linear functions of the columns follow from m. So do divergences between the softmaxes
    p and q of two sets of rows x and x' against the same columns: :math:`KL(p_i \| q_i) = \langle
    x_i - x'_i, m_i \rangle - r_i + r'_i`.

    Args:
      rows: [b, D], already divided by the temperature.
      columns: [b', D], this device's columns.
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      column_bias: c [b'], added to each column.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      implementation: as of `row_logsumexp`.
      tile: rows and columns of a tile; None for the default.

    Returns:
      r [b] and m [b, D]; -inf and zero for a row whose every column is excluded.
    """
    of_rows, of_columns = exclude or (None, None)
    sides = Side(rows, of_rows), Side(columns, of_columns, column_bias)
    found = _statistics(*sides, axis_name, implementation, tile, mean=True)
    return found.logsumexp, found.mean


def expected_logit(
    rows: Array,
    columns: Array,
    *,
    exclude: Ids | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> tuple[Array, Array]:
    r"""`row_logsumexp`, and in the same pass the softmax-weighted mean of the logits.

    .. math:: r_i, \qquad e_i = \sum_j p_{ij} \langle x_i, y_j \rangle,
       \qquad p_{ij} = \exp(\langle x_i, y_j \rangle - r_i)

    The entropy of the softmax is :math:`r_i - e_i`. `attention` gives e as
    :math:`\langle x_i, m_i \rangle`, with seven matrix products for value and gradient in place of
    these four.

    Args:
      rows: [b, D], already divided by the temperature.
      columns: [b', D], this device's columns.
      exclude: ids (u [b], v [b']); a pair of equal ids is excluded.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.
      implementation: as of `row_logsumexp`.
      tile: rows and columns of a tile; None for the default.

    Returns:
      r and e, [b] each; -inf and zero for a row whose every column is excluded.
    """
    of_rows, of_columns = exclude or (None, None)
    sides = Side(rows, of_rows), Side(columns, of_columns)
    found = _statistics(*sides, axis_name, implementation, tile, expected=True)
    return found.logsumexp, found.expected


def self_logsumexp(
    rows: Array,
    *,
    exclude: Array | None = None,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> Array:
    r"""Log-sum-exp of every row over all other rows of all devices.

    .. math:: r_i = \log \sum_{j \,:\, u_i \ne u_j} \exp \langle x_i, x_j \rangle

    Equal to `row_logsumexp` of rows against themselves, with a cheaper gradient: the matrix is
    symmetric, and one tile serves both its sides.

    Args:
      rows: [b, D], already divided by the square root of the temperature.
      exclude: ids u [b]; a pair of equal ids is excluded. None excludes only each row's pair with
        itself.
      axis_name: mapped axis over which the rows are spread; None if these are all of them.
      implementation: as of `row_logsumexp`.
      tile: rows and columns of a tile; None for the default.

    Returns:
      [b]; -inf for a row whose every column is excluded.
    """
    side = Side(rows, row_ids(rows, axis_name) if exclude is None else exclude)
    return _self_statistics(side, axis_name, implementation, tile).logsumexp


def self_labeled_logsumexp(
    rows: Array,
    *,
    labels: Array,
    axis_name: AxisName = None,
    implementation: Implementation = "auto",
    tile: int | None = None,
) -> tuple[Array, Array, Array]:
    r"""`labeled_logsumexp` of every row over all other rows, with the gradient of `self_logsumexp`.

    Args:
      rows: [b, D], already divided by the square root of the temperature.
      labels: [b].
      axis_name: mapped axis over which the rows are spread; None if these are all of them.
      implementation: as of `row_logsumexp`.
      tile: rows and columns of a tile; None for the default.

    Returns:
      Log-sum-exp, sum and number of the logits of other rows of the same label, [b] each.
    """
    side = Side(rows, row_ids(rows, axis_name), labels=labels)
    found = _self_statistics(side, axis_name, implementation, tile)
    return found.logsumexp, found.matched, found.matched_count


def choose(implementation: str, rows: Array, columns: Array, axis_name: AxisName) -> str:
    """The implementation to use: the choice of "auto", or the given one.

    Raises:
      ValueError: implementation is unknown.
    """
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    if implementation != "auto":
        return implementation
    count = batch_size(columns, axis_name)
    if rows.shape[0] * count <= _DENSE_LOGITS:
        return "dense"
    gathered = 2 * count * columns.shape[1] * columns.dtype.itemsize
    return "ring" if axis_name is not None and gathered > _RING_BYTES else "streamed"


def _statistics(
    rows: Side,
    columns: Side,
    axis_name: AxisName,
    implementation: str,
    tile: int | None,
    *,
    mean: bool = False,
    expected: bool = False,
) -> Statistics:
    how = choose(implementation, rows.values, columns.values, axis_name)
    if how == "dense":
        gathered = jax.tree.map(lambda leaf: gather_rows(leaf, axis_name), columns)
        return _dense(rows, gathered, mean, expected)
    plan = _plan(how, tile, axis_name)._replace(mean=mean, expected=expected)
    return streamed(rows, columns, plan)


def _self_statistics(
    rows: Side, axis_name: AxisName, implementation: str, tile: int | None
) -> Statistics:
    how = choose(implementation, rows.values, rows.values, axis_name)
    if how == "dense":
        return _statistics(rows, rows, axis_name, how, tile)
    return symmetric(rows, _plan(how, tile, axis_name))


def one_tile_plan(
    implementation: str, rows: Array, columns: Array, axis_name: AxisName, tile: int | None
) -> Plan:
    """The plan of an implementation of which "dense" is a single tile."""
    how = choose(implementation, rows, columns, axis_name)
    return _plan(
        how, tile or (batch_size(columns, axis_name) if how == "dense" else None), axis_name
    )


def _plan(how: str, tile: int | None, axis_name: AxisName) -> Plan:
    # The ring exists to save memory. Tiles of a quarter of the size cost it little time.
    ring = how == "ring"
    return Plan(tile or (TILE // 2 if ring else TILE), axis_name, ring)


def _dense(rows: Side, columns: Side, mean: bool, expected: bool) -> Statistics:
    """Statistics from all logits at once; no gradient to a row whose columns are all excluded."""
    logits = tile_logits(rows, columns)
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=1))
    nonempty = ~jnp.isneginf(largest)
    exponentials = jnp.exp(logits - jnp.where(nonempty, largest, jnp.zeros_like(largest))[:, None])
    total = jnp.sum(exponentials, axis=1)
    total = jnp.where(nonempty, total, jnp.ones_like(total))
    found = Statistics(jnp.where(nonempty, jnp.log(total) + largest, -jnp.inf))
    if rows.labels is not None:
        matching = same_label(logits, rows, columns)
        matched = jnp.sum(jnp.where(matching, logits, jnp.zeros_like(logits)), axis=1)
        count = jnp.sum(matching, axis=1, dtype=logits.dtype)
        found = found._replace(matched=matched, matched_count=count)
    if mean:
        found = found._replace(mean=matmul(exponentials, columns.values) / total[:, None])
    if expected:
        found = found._replace(expected=jnp.sum(exponentials * finite(logits), axis=1) / total)
    return found
