"""Collectives over the axis on which the batch is spread, and their plain meaning without one.

Inside `jax.pmap` or `jax.shard_map(..., check_vma=False)` each device computes a share of a loss, and
the mean of `jax.grad(share)` over devices is the exact gradient of the mean of the shares: the
transpose of each collective here sums the cotangents of all devices.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

Array = jax.Array
AxisName = str | tuple[str, ...] | None
Tree = TypeVar("Tree")


def axis_size(axis_name: AxisName) -> int:
    """The number of devices over which the batch is spread; 1 without an axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def batch_size(rows: Array, axis_name: AxisName) -> int:
    """The number of rows of the global batch, given this device's rows [b, ...]."""
    return rows.shape[0] * axis_size(axis_name)


def row_ids(rows: Array, axis_name: AxisName) -> Array:
    """The places in the global batch of this device's rows [b, ...]: int32 [b]."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * rows.shape[0]
    return first + jnp.arange(rows.shape[0], dtype=jnp.int32)


def gather_rows(rows: Array, axis_name: AxisName) -> Array:
    """The rows of all devices in the order of the global batch: [b, ...] to [B, ...]; differentiable."""
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def sum_over(tree: Tree, axis_name: AxisName) -> Tree:
    """The sum over devices of every leaf; differentiable."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)
