"""The two sums over pairs that carry every loss of rows against columns, and the diagonal.

Pairs to leave out are told by ids, one per row and one per column, never by a [b, B] array.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, gather_rows

Array = jax.Array
Ids = tuple[Array, Array]


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
) -> Array:
    r"""Log-sum-exp of every row of the affinity matrix, over the columns of all devices.

    .. math:: r_i = \log \sum_{j \,:\, u_i \ne v_j} \exp(\langle x_i, y_j \rangle + c_j)

    Args:
      rows: [b, D], already divided by the temperature.
      columns: [b', D], this device's columns; b' need not equal b.
      exclude: ids (u [b], v [b']); a pair of equal ids is left out.
      column_bias: c [b'], added to each column (the logarithm of its weight).
      axis_name: mapped axis over which the columns are spread; None if these are all of them.

    Returns:
      [b]; -inf for a row whose every column is left out.
    """
    bias = None if column_bias is None else gather_rows(column_bias, axis_name)
    logits = _scores(rows, gather_rows(columns, axis_name))
    if bias is not None:
        logits = logits + bias[None, :]
    if exclude is not None:
        logits = jnp.where(_kept(exclude, axis_name), logits, -jnp.inf)
    return jax.nn.logsumexp(logits, axis=1)


def pair_sum(
    f: Callable[..., Array],
    rows: Array,
    columns: Array,
    *,
    row_values: tuple[Array, ...] = (),
    column_values: tuple[Array, ...] = (),
    exclude: Ids | None = None,
    axis_name: AxisName = None,
) -> Array:
    r"""Sum of a scalar function over this device's rows and the columns of all devices.

    .. math:: \sum_{i,\, j \,:\, u_i \ne v_j} f(\langle x_i, y_j \rangle, p_i, \dots, q_j, \dots)

    Args:
      f: elementwise function of a tile of inner products [m, n], then of each row value [m, 1] and
        each column value [1, n]; finite for every pair, also those left out.
      rows: [b, D].
      columns: [b', D], this device's columns.
      row_values: arrays [b] that f takes after the inner products.
      column_values: arrays [b'] that f takes last.
      exclude: ids (u [b], v [b']); a pair of equal ids is left out.
      axis_name: mapped axis over which the columns are spread; None if these are all of them.

    Returns:
      A scalar; its sum over devices is the sum over all pairs of the global batch.
    """
    values = f(
        _scores(rows, gather_rows(columns, axis_name)),
        *(value[:, None] for value in row_values),
        *(gather_rows(value, axis_name)[None, :] for value in column_values),
    )
    if exclude is not None:
        values = jnp.where(_kept(exclude, axis_name), values, jnp.zeros_like(values))
    return jnp.sum(values)


def _scores(rows: Array, columns: Array) -> Array:
    return jnp.matmul(rows, columns.T, precision=jax.lax.Precision.HIGHEST)


def _kept(exclude: Ids, axis_name: AxisName) -> Array:
    of_rows, of_columns = exclude
    return of_rows[:, None] != gather_rows(of_columns, axis_name)[None, :]
