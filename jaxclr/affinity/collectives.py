"""Collectives over the axis on which the batch is spread. Without an axis they are the identity.

Inside `jax.pmap` or `jax.shard_map(..., check_vma=False)` each device computes a share of a loss,
and the mean of `jax.grad(share)` over devices is the exact gradient of the mean of the shares: the
transpose of each collective here sums the cotangents of all devices.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

Array = jax.Array
AxisName = str | tuple[str, ...] | None
Tree = TypeVar("Tree")
Carry = TypeVar("Carry")


def axis_size(axis_name: AxisName) -> int:
    """The number of devices over which the batch is spread; 1 without an axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def batch_size(rows: Array, axis_name: AxisName) -> int:
    """The number of rows of the global batch, given this device's rows [b, ...]."""
    return rows.shape[0] * axis_size(axis_name)


def row_ids(rows: Array, axis_name: AxisName) -> Array:
    """The batch index of each of this device's rows [b, ...]: int32 [b]."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * rows.shape[0]
    return first + jnp.arange(rows.shape[0], dtype=jnp.int32)


def gather_rows(rows: Array, axis_name: AxisName) -> Array:
    """The rows of all devices in batch order: [b, ...] to [B, ...]; differentiable."""
    return rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)


def sum_over(tree: Tree, axis_name: AxisName) -> Tree:
    """The sum over devices of every leaf; differentiable."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def scatter_sum(rows: Array, axis_name: AxisName) -> Array:
    """The transpose of `gather_rows`: this device's rows [b, ...] of the sum over devices."""
    return rows if axis_name is None else jax.lax.psum_scatter(rows, axis_name, tiled=True)


def each_shard(
    visit: Callable[[Carry, Tree], tuple[Carry, Tree]],
    carry: Carry,
    shard: Tree,
    axis_name: AxisName,
    *,
    ring: bool,
) -> tuple[Carry, Tree]:
    """Folds the shards of all devices into a carry, gathered or one after the other in a ring.

    Args:
      visit: (carry, shard) to the next carry and the shard that is passed on.
      carry: the initial carry of this device.
      shard: the shard of this device; arrays [b, ...].
      axis_name: mapped axis over which shards are spread; None if this is the only one.
      ring: whether shards travel round a ring. Each returns to its device with the changes of all
        visits.

    Returns:
      The last carry and, for a ring, this device's shard after all visits.
    """
    devices = axis_size(axis_name)
    if not ring or devices == 1:
        return visit(carry, jax.tree.map(lambda leaf: gather_rows(leaf, axis_name), shard))
    onward = [(device, (device + 1) % devices) for device in range(devices)]
    send = lambda tree: jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axis_name, onward), tree)

    def hop(_: int, state: tuple[Carry, Tree]) -> tuple[Carry, Tree]:
        carry, shard = visit(*state)
        return carry, send(shard)

    return jax.lax.fori_loop(0, devices, hop, (carry, shard))
