"""Batches of a split without augmentation, and functions of all its examples."""

import collections
import concurrent.futures
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr import trees
from jaxclr.data import Records, Split, Stream
from jaxclr.processes import runtime
from jaxclr.steps.batches import canonical

Array = jax.Array
Tree = Any
T = TypeVar("T")

# Examples that a device embeds at once: a constant, so that one program serves splits of any size
# and rounds alike on any number of devices.
BATCH = 250
AHEAD = 2  # batches that are read, and that are computed, while the host goes on
_FILES = 10_000  # files whose labels are read at once


class Examples(NamedTuple):
    """Some examples of a split.

    Attributes:
      data: arrays [n, ...] of any type, in a tree; images are one array, uint8 [n, H, W, C].
      indices: into the split, int [n].
      labels: int32 [n]; -1 without labels.
      names: their files; None without files.
      seen: how many of the requested rows are done, damaged ones included.
    """

    data: Tree
    indices: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None
    seen: int


def batches(
    split: Split | Stream | Records,
    *,
    size: int | None,
    batch: int = BATCH,
    rows: Sequence[int] | np.ndarray | None = None,
    replace_damaged: bool = False,
) -> Iterator[Examples]:
    """Examples of a split, in the order of the rows.

    Args:
      split: N examples.
      size: side in pixels of streamed images, as squares; None for a split in memory.
      batch: examples in a batch; the last batch may be smaller.
      rows: indices into the split, [n]; None for all, in order.
      replace_damaged: replace a damaged image by the one after it, so that every row has an
        example; otherwise damaged images are omitted, and their batches are smaller.
    """
    rows = np.arange(split.size) if rows is None else np.asarray(rows)
    seen = 0
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    for asked, found in zip(parts, _read(split, parts, size), strict=True):
        seen += len(asked)
        kept = np.flatnonzero((found.indices == asked) | replace_damaged)
        if len(kept) == len(asked):
            yield found._replace(seen=seen)
        elif len(kept):
            yield _take(found, kept)._replace(seen=seen)


def _read(
    split: Split | Stream | Records, parts: Iterable[np.ndarray], size: int | None
) -> Iterator[Examples]:
    """The examples with these indices, part by part; in place of a damaged image the next one."""
    if isinstance(split, Stream):
        assert size is not None  # streamed images are resized to it
        for found in split.plain_batches(size, (part.tolist() for part in parts)):
            images = np.stack([image for (image,) in found.made])
            yield Examples(images, found.indices, found.labels, found.names, len(images))
        return
    for part in parts:
        if isinstance(split, Records):
            found = split.read(part.tolist())
            yield Examples(found.examples, found.indices, found.labels, None, len(part))
            continue
        labels = np.full(len(part), -1, np.int32) if split.labels is None else split.labels[part]
        names = None if split.names is None else [split.names[int(row)] for row in part]
        yield Examples(trees.take(split.examples, part), part, labels, names, len(part))


def _take(some: Examples, rows: np.ndarray) -> Examples:
    """Some rows of examples."""
    names = None if some.names is None else [some.names[int(row)] for row in rows]
    data = trees.take(some.data, rows)
    return Examples(data, some.indices[rows], some.labels[rows], names, len(rows))


def labels_of(split: Split | Stream | Records) -> np.ndarray:
    """Labels of all examples of a labeled split, int32 [N], without reading the examples."""
    if isinstance(split, Split):
        assert split.labels is not None  # callers need a labeled split
        return split.labels
    if isinstance(split, Records):
        return split.labels()
    starts = range(0, split.size, _FILES)
    files = (split.stored.read(split.rows[start : start + _FILES].tolist()) for start in starts)
    return np.asarray([label for some in files for _, label in some], np.int32)


def fill(data: Tree, batch: int) -> Tree:
    """Fills up a batch: after the last examples come the first ones again."""
    return trees.take(data, np.arange(batch) % trees.size_of(data))


def apply_in_batches(function: Callable[[Tree], Tree], data: Tree, *, batch: int = BATCH) -> Tree:
    """Applies a function to batches of one size, so that it is compiled once.

    Args:
      function: maps a tree of arrays [batch, ...] to arrays with as many rows.
      data: n examples.
      batch: examples in a batch; the last batch is filled up.

    Returns:
      The outputs of the function, arrays with n rows on the host.
    """
    total = trees.size_of(data)
    starts = range(0, total, batch)
    some = [
        function(fill(trees.take(data, slice(start, start + batch)), batch)) for start in starts
    ]
    return jax.tree.map(
        lambda *parts: np.concatenate([np.asarray(part) for part in parts])[:total], *some
    )


class Spread(NamedTuple):
    """A batch of examples that is spread over the devices of all processes.

    Attributes:
      data: a tree of arrays [B, ...], sharded by rows if the number of devices divides B; otherwise
        whole on every device, and read by every process.
      indices: into the split, of this process's rows; -1 where a row is padding or damaged.
      labels: of this process's rows, int32; -1 also for these.
      names: of this process's rows; None without files.
    """

    data: Tree
    indices: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None


def spread(
    split: Split | Stream | Records, places: np.ndarray, mesh: Mesh, *, size: int | None
) -> Iterator[Spread]:
    """Batches over all devices; a process reads the rows of its own devices, in a thread, ahead.

    Args:
      split: N examples.
      places: indices into the split, [batches, B]; -1 for padding, which repeats other examples.
      mesh: the devices.
      size: side in pixels of streamed images, as squares; None for a split in memory.
    """
    rows = places.shape[1]
    mine = places[:, slice(rows) if rows % mesh.size else runtime.my_part(mesh, rows)]
    # An example is read for its shape where all is padding.
    wanted = [row[row >= 0] if (row >= 0).any() else np.zeros(1, int) for row in mine]
    for asked, found in zip(mine, _ahead(_read(split, wanted, size), AHEAD), strict=True):
        real = asked >= 0
        found = _take(found, np.maximum(np.cumsum(real) - 1, 0))
        kept = real & (found.indices == asked)
        yield Spread(
            put_rows(canonical(found.data), rows, mesh),
            np.where(kept, asked, -1),
            np.where(kept, found.labels, -1).astype(np.int32),
            found.names,
        )


def put_rows(tree: Tree, rows: int, mesh: Mesh) -> Tree:
    """This process's rows of arrays [rows, ...] on its devices, as `Spread` has them."""
    sharding = NamedSharding(mesh, P() if rows % mesh.size else P(mesh.axis_names))
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


def map_split(
    function: Callable[[Tree], Array],
    split: Split | Stream | Records,
    mesh: Mesh,
    *,
    size: int | None,
    rows: np.ndarray | None = None,
) -> tuple[Array | np.ndarray, np.ndarray]:
    """Applies a function to examples on all devices, each of which has a block of the rows.

    The host waits only for batches of long ago. All processes call it.

    Args:
      function: of a tree of arrays [B, ...], sharded by rows, to an array with as many rows.
      split: N examples.
      mesh: the devices.
      size: side in pixels of streamed images, as squares; None for a split in memory.
      rows: indices into the split, [n]; None for all, in order.

    Returns:
      The outputs in the order of the rows, padded at the end to a multiple of devices x BATCH and
      sharded by rows; in an array of the host if they do not fit a quarter of the memory of a
      single device. And labels, int32, -1 also for padding and damaged images.

    Raises:
      UserError: an example cannot be read, by any process.
    """
    rows = np.arange(split.size) if rows is None else np.asarray(rows)
    steps = -(-len(rows) // (mesh.size * BATCH))
    order = np.full(steps * mesh.size * BATCH, -1)
    order[: len(rows)] = rows
    blocks = lambda flat, first: flat.reshape(first, -1, BATCH).swapaxes(0, 1)
    places = blocks(order, mesh.size).reshape(steps, -1)

    def apply() -> tuple[Any, np.ndarray]:
        out, labels, running = None, [], collections.deque()
        for step, some in enumerate(spread(split, places, mesh, size=size)):
            labels.append(some.labels)
            running.append(values := function(some.data))
            if out is None:
                out = _room(values, steps, mesh)
            if isinstance(out, list):
                if len(running) > AHEAD:
                    out.append(np.asarray(running.popleft()))
            else:
                out = _store(out, values, step, mesh=mesh)
                if len(running) > AHEAD:
                    jax.block_until_ready(running.popleft())
        if isinstance(out, list):
            out = np.concatenate([*out, *map(np.asarray, running)])
        return out, np.stack(labels)

    out, labels = runtime.run_on_all(apply)
    labels = np.concatenate(runtime.gather(labels), axis=1)
    return out, blocks(labels.ravel(), steps).ravel()


def _room(values: Array, steps: int, mesh: Mesh) -> Array | list[np.ndarray]:
    """Zeros for the outputs of all batches, sharded by rows; a list if they do not fit a device."""
    shape = (steps * len(values), *values.shape[1:])
    memory = mesh.size == 1 and (mesh.devices.flat[0].memory_stats() or {}).get("bytes_limit")
    if memory and 4 * steps * values.nbytes > memory:
        return []
    return jnp.zeros(shape, values.dtype, device=NamedSharding(mesh, P(mesh.axis_names)))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnums=0)
def _store(out: Array, values: Array, step: int, *, mesh: Mesh) -> Array:
    """Writes a batch to its place in the block of each device."""
    rows = P(mesh.axis_names)
    put = lambda out, values, step: jax.lax.dynamic_update_slice_in_dim(
        out, values, step * len(values), 0
    )
    mapped = jax.shard_map(put, mesh=mesh, in_specs=(rows, rows, P()), out_specs=rows)
    return mapped(out, values, step)


def _ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """The items, of which a thread makes so many ahead."""
    end: Any = object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        make = lambda: pool.submit(next, items, end)
        pending = collections.deque(make() for _ in range(count))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(make())
                yield item
        finally:
            for future in pending:
                future.cancel()
