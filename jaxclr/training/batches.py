"""Batches from images that live on the devices."""

import functools
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import epoch_order


def resident_batches(
    images: np.ndarray, *, batch_size: int, seed: int, mesh: Mesh, start: int = 0
) -> Iterator[jax.Array]:
    """The batches of every epoch in turn, without end; batch t is a function of (seed, t) alone.

    Args:
      images: uint8 [N, H, W, C]; a copy is put on every device.
      batch_size: rows of the global batch; the last N mod batch_size images of an epoch's order are left out.
      seed: of the orders.
      mesh: the devices.
      start: number of the first batch to yield.

    Yields:
      uint8 [batch_size, H, W, C], spread over the devices by rows.
    """
    everywhere, by_rows = NamedSharding(mesh, P()), NamedSharding(mesh, P(mesh.axis_names))
    resident = jax.device_put(images, everywhere)
    per_epoch = len(images) // batch_size

    @functools.partial(jax.jit, out_shardings=by_rows)
    def take(images: jax.Array, order: jax.Array, index: int) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(order, index * batch_size, batch_size)
        return images[rows]

    epoch, first = divmod(start, per_epoch)
    while True:
        order = jax.device_put(epoch_order(seed, epoch, len(images)), everywhere)
        for index in range(first, per_epoch):
            yield take(resident, order, index)
        epoch, first = epoch + 1, 0
