"""Batches of a split that is in the memory of the devices, or of the crops of a stream."""

import functools
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import Split, epoch_order
from jaxclr.processes.runtime import replicate

Array = jax.Array


class Batch(NamedTuple):
    """Examples, their indices and labels: the global batch, or one device's rows of it.

    The leaves are JAX arrays, NumPy arrays before they are on the devices, or shapes and types.

    Attributes:
      examples: a tree of arrays [b, ...], such as images uint8 [b, H, W, C]; or, for a stream, a
        tuple with the crops of each view, uint8 [b, size, size, C].
      indices: indices into the training split, int32 [b].
      labels: int32 [b]; -1 without labels.
    """

    examples: Any
    indices: Any
    labels: Any


def resident(split: Split, mesh: Mesh) -> Batch:
    """The complete split, in its own order, with a copy on every device."""
    count = split.size
    indices = np.arange(count, dtype=np.int32)
    labels = np.full(count, -1) if split.labels is None else split.labels
    batch = Batch(split.examples, indices, labels.astype(np.int32))
    return replicate(canonical(batch), mesh)


def canonical(tree: Any) -> Any:
    """Converts arrays to the types of JAX: float64 becomes float32 unless x64 is on."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype)), tree
    )


def batch_rows(count: int, *, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices into the training split of the images of batch `step`, int32 [batch_size].

    See `resident_batches`.
    """
    epoch, index = divmod(step, count // batch_size)
    order = np.asarray(epoch_order(seed, epoch, count))
    return order[index * batch_size : (index + 1) * batch_size]


def resident_batches(
    split: Batch, *, batch_size: int, seed: int, mesh: Mesh, start: int = 0
) -> Generator[Batch, None, None]:
    """An infinite iterator over batches, epoch by epoch; batch t is a function of (seed, t) alone.

    Args:
      split: the split, on every device.
      batch_size: rows of the global batch; each epoch omits the last N mod batch_size images of
        its order.
      seed: seed of the orders.
      mesh: the devices.
      start: number of the first batch to yield.

    Yields:
      A batch, spread over the devices by rows.
    """
    by_rows = NamedSharding(mesh, P(mesh.axis_names))
    count = len(split.indices)
    per_epoch = count // batch_size

    @functools.partial(jax.jit, out_shardings=by_rows)
    def take(split: Batch, order: Array, index: int) -> Batch:
        rows = jax.lax.dynamic_slice_in_dim(order, index * batch_size, batch_size)
        return jax.tree.map(lambda leaf: leaf[rows], split)

    epoch, first = divmod(start, per_epoch)
    while True:
        order = replicate(epoch_order(seed, epoch, count), mesh)
        for index in range(first, per_epoch):
            yield take(split, order, index)
        epoch, first = epoch + 1, 0
