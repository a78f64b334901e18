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
"""A mapped axis, or several, over which the batch is spread; None on one device."""

AT_ONCE = 32  # most devices of a gather or scatter in one stage
STAGE = 8  # devices of each other stage

Tree = TypeVar("Tree")
Carry = TypeVar("Carry")


def axis_size(axis_name: AxisName) -> int:
    """The number of devices over which the batch is spread; 1 without an axis."""
    return 1 if axis_name is None else jax.lax.psum(1, axis_name)


def batch_size(rows: Array, axis_name: AxisName) -> int:
    """The number of rows of the global batch, given this device's rows [b, ...].

    >>> jaxclr.affinity.batch_size(jnp.zeros((8, 4)), None)
    8
    """
    return rows.shape[0] * axis_size(axis_name)


def row_ids(rows: Array, axis_name: AxisName) -> Array:
    """The batch index of each of this device's rows [b, ...]: int32 [b].

    >>> jaxclr.affinity.row_ids(jnp.zeros((3, 4)), None)
    Array([0, 1, 2], dtype=int32)
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * rows.shape[0]
    return first + jnp.arange(rows.shape[0], dtype=jnp.int32)


def gather_rows(rows: Array, axis_name: AxisName, axis: int = 0) -> Array:
    """The rows of all devices in batch order: [b, ...] to [B, ...]; differentiable.

    Rows are along the first axis, or along another.
    """
    for groups in reversed(_stages(axis_name)):
        rows = jax.lax.all_gather(rows, axis_name, axis_index_groups=groups, axis=axis, tiled=True)
    return rows


def sum_over(tree: Tree, axis_name: AxisName) -> Tree:
    """The sum over devices of every leaf; differentiable."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def scatter_sum(rows: Array, axis_name: AxisName, axis: int = 0) -> Array:
    """The transpose of `gather_rows`: this device's rows [b, ...] of the sum over devices."""
    for groups in _stages(axis_name):
        rows = jax.lax.psum_scatter(
            rows, axis_name, axis_index_groups=groups, scatter_dimension=axis, tiled=True
        )
    return rows


def _stages(axis_name: AxisName) -> list[list[list[int]] | None]:
    """The groups of devices of each stage of a scatter; None for all at once.

    The TPU's compiler replaces a gather or a scatter over many chips by an all-reduce, which sends
    twice as much. It keeps one in stages, which sends no more than one at once.
    """
    if axis_name is None:
        return []
    devices, stages = axis_size(axis_name), []
    block = devices
    while isinstance(axis_name, str) and block > AT_ONCE and block % STAGE == 0:
        block //= STAGE
        stages.append(_groups(devices, STAGE, block))
    return [*stages, _groups(devices, block, 1) if stages else None]


def _groups(devices: int, size: int, stride: int) -> list[list[int]]:
    """All devices in groups of a size, whose members are a stride apart."""
    return [
        [first + member * stride for member in range(size)]
        for start in range(0, devices, size * stride)
        for first in range(start, start + stride)
    ]


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
