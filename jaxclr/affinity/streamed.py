"""Statistics of rows over the columns of all devices, streamed, with gradients of their own."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero, custom_vjp_primal_tree_values

from jaxclr.affinity.collectives import AxisName, each_shard, gather_rows, scatter_sum
from jaxclr.affinity.tiles import (
    Running,
    Side,
    Statistics,
    begin,
    finish,
    meet,
    pull,
    pull_rows,
    weigh,
)

Array = jax.Array


class Plan(NamedTuple):
    """How to stream: rows and columns of a tile, the axis of the batch, whether columns go round a ring, and what to keep."""

    tile: int
    axis_name: AxisName
    ring: bool
    mean: bool = False
    expected: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def streamed(rows: Side, columns: Side, plan: Plan) -> Statistics:
    """Statistics of each row [m] of this device over the columns of all devices."""
    return finish(meet_all(rows, columns, plan))


def meet_all(rows: Side, columns: Side, plan: Plan) -> Running:
    """What rows [m] of this device have met after the columns of all devices."""
    visit = lambda running, shard: (meet(running, rows, shard, plan.tile), shard)
    labelled = rows.labels is not None
    nothing = begin(rows, labelled=labelled, mean=plan.mean, expected=plan.expected)
    return each_shard(visit, nothing, columns, plan.axis_name, ring=plan.ring)[0]


def _forward(rows: Side, columns: Side, plan: Plan):
    learned = any(leaf.perturbed for leaf in jax.tree.leaves(columns, is_leaf=_is_input))
    rows, columns = custom_vjp_primal_tree_values((rows, columns))
    running = meet_all(rows, columns, plan)
    # What is saved is arrays alone: a tuple or None tells whether somebody wants the columns' gradient.
    return finish(running), (rows, columns, running, () if learned else None)


def _is_input(leaf: Any) -> bool:
    return isinstance(leaf, CustomVJPPrimal)


def _backward(plan: Plan, saved, gradient: Statistics):
    rows, columns, running, learned = saved
    zero = lambda leaf: isinstance(leaf, SymbolicZero)
    filled = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if zero(leaf) else leaf
    weighing = weigh(running, jax.tree.map(filled, gradient, is_leaf=zero))
    if learned is None:
        # Keys of a momentum encoder, a queue: nothing is computed for them, and nothing sent back.
        visit = lambda to_rows, shard: (to_rows + pull_rows(rows, shard, weighing, plan.tile), shard)
        nothing = jnp.zeros_like(rows.values)
        to_rows, _ = each_shard(visit, nothing, columns, plan.axis_name, ring=plan.ring)
        return Side(to_rows), None
    if plan.ring:

        def visit(to_rows, travelling):
            shard, to_columns, to_bias = travelling
            parts = pull(rows, shard, weighing, plan.tile)
            return to_rows + parts[0], (shard, to_columns + parts[1], to_bias + parts[2])

        nothing = jnp.zeros_like(columns.values), jnp.zeros_like(columns.values[:, 0])
        to_rows, (_, to_columns, to_bias) = each_shard(
            visit, jnp.zeros_like(rows.values), (columns, *nothing), plan.axis_name, ring=True
        )
    else:
        every = jax.tree.map(lambda leaf: gather_rows(leaf, plan.axis_name), columns)
        to_rows, *to_every = pull(rows, every, weighing, plan.tile)
        to_columns, to_bias = (scatter_sum(leaf, plan.axis_name) for leaf in to_every)
    return Side(to_rows), Side(to_columns, bias=None if columns.bias is None else to_bias)


streamed.defvjp(_forward, _backward, symbolic_zeros=True)
