"""MoCo's queue of normalized rows of earlier batches, equal on all devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclr.affinity import AxisName, gather_rows, unit_rows
from jaxclr.errors import UserError
from jaxclr.methods.base import Sizes

Array = jax.Array


class Queue(NamedTuple):
    """Rows of earlier batches, as part of a method's state.

    Attributes:
      rows: [K, D], of unit length; initially random.
      oldest: int32 [], index of the row that is replaced next.
    """

    rows: Array
    oldest: Array


def init_queue(key: Array, size: int, sizes: Sizes) -> Queue:
    """A queue of random unit rows.

    Args:
      key: typed key [].
      size: K, rows; a multiple of the global batch.
      sizes: sizes of the run.

    Raises:
      UserError: size is not a positive multiple of the batch.
    """
    if size < 1 or size % sizes.batch:
        fit = max(1, size // sizes.batch) * sizes.batch
        raise UserError(
            f"method.queue_size must be a multiple of the batch of {sizes.batch}, got {size}; "
            f"set {fit}, or another --batch-size."
        )
    rows = unit_rows(jax.random.normal(key, (size, sizes.embedding)))
    return Queue(rows, jnp.zeros((), jnp.int32))


def enqueue(queue: Queue, rows: Array, axis_name: AxisName) -> Queue:
    """Replaces the oldest rows by the normalized rows of the global batch.

    Args:
      queue: equal on all devices.
      rows: rows of this device, [b, D], any float dtype.
      axis_name: mapped axis over which the batch is spread; None if rows are all of it.
    """
    batch = unit_rows(gather_rows(rows, axis_name).astype(queue.rows.dtype))
    # A batch never wraps around: its size divides that of the queue.
    kept = jax.lax.dynamic_update_slice_in_dim(queue.rows, batch, queue.oldest, axis=0)
    return Queue(kept, (queue.oldest + len(batch)) % len(kept))
