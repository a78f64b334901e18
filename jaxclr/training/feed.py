"""What a run trains on: all its batches in turn, and all its images at once."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr import trees
from jaxclr.data import Records, Stream
from jaxclr.data.crops import Crop
from jaxclr.data.pieces import Piece, Pieces
from jaxclr.data.random_access import RecordBatches, Rows
from jaxclr.steps.batches import Batch, canonical, resident, resident_batches
from jaxclr.training.session import Session

Array = jax.Array

AHEAD = 2  # batches that are on their way to the devices while a step runs


class Feed(NamedTuple):
    """What a run trains on.

    Attributes:
      batches: from the first to come, without end; batch t is a function of (seed, t) alone.
      examples: of the training split, a tree of arrays [N, ...] on every device; or the split that they are read from.
    """

    batches: Iterator[Batch]
    examples: Any

    def close(self) -> None:
        """Ends the processes and threads that make batches."""
        self.batches.close()


def open_feed(session: Session, *, start: int, report: Callable[[str], None]) -> Feed:
    """The batches of a session from a step on, resident or streamed as its data are; each process streams its own rows.

    Args:
      session: whose data, batch size, seed, views and devices.
      start: number of the first step.
      report: told about every damaged image, once.
    """
    config, train = session.config, session.dataset.train
    if isinstance(train, Stream):
        crops = tuple(Crop(v.size, v.crop_scale, v.crop_ratio) for v in config.augmentation.views)
        share = (jax.process_index(), jax.process_count())
        pieces = Pieces(train, crops, config.batch_size, config.seed, *share)
        steps = pieces.steps(start, config.data.workers)
        return Feed(streamed_batches(train, steps, session.mesh, report), train)
    if isinstance(train, Records):
        share = (jax.process_index(), jax.process_count())
        rows = RecordBatches(train, config.batch_size, config.seed, *share).steps(start)
        return Feed(record_batches(rows, session.mesh), train)
    whole = resident(train, session.mesh)
    batches = resident_batches(
        whole, batch_size=config.batch_size, seed=config.seed, mesh=session.mesh, start=start
    )
    return Feed(batches, whole.examples)


def streamed_batches(
    stream: Stream, steps: Iterator[list[Piece]], mesh: Mesh, report: Callable[[str], None]
) -> Iterator[Batch]:
    """Batches of crops, of which the next are copied to the devices by a thread while this one is used.

    Args:
      stream: for the names of damaged images.
      steps: this process's pieces of each step.
      mesh: the devices of all processes.
      report: told about every damaged image, once.

    Yields:
      A batch whose images are a tuple of crops, spread over the devices by rows.
    """
    damaged: set[int] = set()

    def join() -> Batch:
        pieces = next(steps)
        for piece in pieces:
            for index in piece.wanted[piece.wanted != piece.indices].tolist():
                if index not in damaged:
                    damaged.add(index)
                    name = stream.name(index)
                    report(
                        f"{len(damaged)} damaged image(s) left out so far: '{name}'; the next one takes its place."
                    )
        crops = tuple(map(_join, zip(*(piece.crops for piece in pieces), strict=True)))
        return Batch(crops, _join([p.indices for p in pieces]), _join([p.labels for p in pieces]))

    yield from _ahead(join, mesh, close=steps.close)


def record_batches(steps: Iterator[Rows], mesh: Mesh) -> Iterator[Batch]:
    """Batches of examples that Grain reads, of which the next are copied to the devices while this one is used.

    Args:
      steps: this process's rows of each step.
      mesh: the devices of all processes.

    Yields:
      A batch, spread over the devices by rows.
    """

    def copy() -> Batch:
        # What a worker sent lies in shared memory, which ends with the next batch.
        rows = next(steps)
        return Batch(
            trees.map_leaves(np.array, rows.examples), np.array(rows.indices), np.array(rows.labels)
        )

    yield from _ahead(copy, mesh, close=steps.close)


def _ahead(make: Callable[[], Batch], mesh: Mesh, *, close: Callable[[], None]) -> Iterator[Batch]:
    """The batches that `make` makes, each put on the devices by a thread while those before it are used."""
    by_rows = NamedSharding(mesh, P(mesh.axis_names))

    def put() -> Batch:
        put_rows = lambda rows: jax.make_array_from_process_local_data(by_rows, rows)
        return jax.tree.map(put_rows, canonical(make()))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            pending = collections.deque(pool.submit(put) for _ in range(AHEAD))
            while True:
                batch = pending.popleft().result()
                pending.append(pool.submit(put))
                yield batch
        finally:
            for future in pending:
                future.cancel()
            concurrent.futures.wait(pending)
            close()


def _join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """A copy in memory of its own: what a worker sent lies in shared memory, which ends with the piece."""
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    return np.concatenate([np.asarray(part) for part in parts], out=joined)
