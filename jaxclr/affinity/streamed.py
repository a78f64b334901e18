"""Statistics of rows over the columns of all devices, in tiles, with a custom gradient."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero, custom_vjp_primal_tree_values

from jaxclr.affinity.collectives import AxisName, each_shard, gather_rows, scatter_sum
from jaxclr.affinity.tiles import (
    Running,
    Side,
    Statistics,
    accumulate,
    backward,
    backward_rows,
    finish,
    initial,
    row_weights,
)

Array = jax.Array


class Plan(NamedTuple):
    """How the matrix is traversed.

    Attributes:
      tile: rows and columns of a tile.
      axis_name: mapped axis over which the batch is spread.
      ring: whether columns travel from device to device instead of being gathered.
      mean: whether the mean of the columns is computed.
      expected: whether the mean of the logits is computed.
    """

    tile: int
    axis_name: AxisName
    ring: bool
    mean: bool = False
    expected: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def streamed(rows: Side, columns: Side, plan: Plan) -> Statistics:
    """Statistics of each row [m] of this device over the columns of all devices."""
    return finish(accumulate_all(rows, columns, plan))


def accumulate_all(rows: Side, columns: Side, plan: Plan) -> Running:
    """Running sums of the rows [m] of this device after the columns of all devices."""
    visit = lambda running, shard: (accumulate(running, rows, shard, plan.tile), shard)
    labeled = rows.labels is not None
    state = initial(rows, labeled=labeled, mean=plan.mean, expected=plan.expected)
    return each_shard(visit, state, columns, plan.axis_name, ring=plan.ring)[0]


def _forward(rows: Side, columns: Side, plan: Plan):
    perturbed = any(leaf.perturbed for leaf in jax.tree.leaves(columns, is_leaf=_is_input))
    rows, columns = custom_vjp_primal_tree_values((rows, columns))
    running = accumulate_all(rows, columns, plan)
    # Only arrays can be saved: () says that the gradient at the columns is needed, None that it is
    # not.
    return finish(running), (rows, columns, running, () if perturbed else None)


def _is_input(leaf: Any) -> bool:
    return isinstance(leaf, CustomVJPPrimal)


def _backward(plan: Plan, saved, gradient: Statistics):
    rows, columns, running, perturbed = saved
    is_zero = lambda leaf: isinstance(leaf, SymbolicZero)
    dense = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if is_zero(leaf) else leaf
    by_row = row_weights(running, jax.tree.map(dense, gradient, is_leaf=is_zero))
    if perturbed is None:
        # Keys of a momentum encoder or of a queue: no gradient is computed or sent for them.
        add = lambda to_rows, shard: (
            to_rows + backward_rows(rows, shard, by_row, plan.tile),
            shard,
        )
        zeros = jnp.zeros_like(rows.values)
        to_rows, _ = each_shard(add, zeros, columns, plan.axis_name, ring=plan.ring)
        return Side(to_rows), None
    pull = lambda shard: backward(rows, shard[0], by_row, plan.tile)
    to_rows, to_columns, to_bias = each_gradient(pull, rows, (columns,), plan)
    return Side(to_rows), Side(to_columns, bias=None if columns.bias is None else to_bias)


streamed.defvjp(_forward, _backward, symbolic_zeros=True)


def each_gradient(
    pull: Callable[[tuple[Side, ...]], tuple[Array, Array, Array]],
    rows: Side,
    columns: tuple[Any, ...],
    plan: Plan,
) -> tuple[Array, Array, Array]:
    """Gradients at this device's rows [m, D], columns [n, D] and bias [n].

    Args:
      pull: a shard of columns to the gradients at the rows of this device and at the shard.
      rows: the rows of this device.
      columns: what `pull` takes, of this device; the side of the columns first.
      plan: how the matrix is traversed.
    """
    if not plan.ring:
        gathered = jax.tree.map(lambda leaf: gather_rows(leaf, plan.axis_name), columns)
        to_rows, *to_gathered = pull(gathered)
        to_columns, to_bias = (scatter_sum(leaf, plan.axis_name) for leaf in to_gathered)
        return to_rows, to_columns, to_bias

    def visit(to_rows, shard_and_gradients):
        shard, to_columns, to_bias = shard_and_gradients
        parts = pull(shard)
        return to_rows + parts[0], (shard, to_columns + parts[1], to_bias + parts[2])

    values = columns[0].values
    start = columns, jnp.zeros_like(values), jnp.zeros_like(values[:, 0])
    to_rows, (_, to_columns, to_bias) = each_shard(
        visit, jnp.zeros_like(rows.values), start, plan.axis_name, ring=True
    )
    return to_rows, to_columns, to_bias
