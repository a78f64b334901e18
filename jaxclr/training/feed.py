"""The batches of a run, resident or streamed."""

import collections
import concurrent.futures
from collections.abc import Callable, Generator, Sequence
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
from jaxclr.errors import UserError
from jaxclr.steps.batches import Batch, canonical, resident, resident_batches
from jaxclr.training.session import Session

Array = jax.Array

AHEAD = 2  # batches prefetched to the devices while a step runs


class Feed(NamedTuple):
    """Batches and examples of the training split.

    Attributes:
      batches: an infinite generator from the first step on; batch t depends on (seed, t) alone.
      examples: of the training split, a tree of arrays [N, ...] on every device; or the split if it
        is streamed.
    """

    batches: Generator[Batch, None, None]
    examples: Any

    def close(self) -> None:
        """Ends the processes and threads that make batches."""
        self.batches.close()


def open_feed(session: Session, *, start: int, report: Callable[[str], None]) -> Feed:
    """The batches of a session from a step on, resident or streamed as its data are.

    Each process streams its own rows.

    Args:
      session: its data, batch size, seed, views and devices are used.
      start: index of the first step.
      report: called once with a sentence on each damaged image.
    """
    config, train = session.config, session.dataset.train
    if isinstance(train, Stream):
        crops = tuple(Crop(v.size, v.crop_scale, v.crop_ratio) for v in config.augmentation.views)
        share = (jax.process_index(), jax.process_count())
        pieces = Pieces(train, crops, config.batch_size, config.seed, *share)
        steps = pieces.steps(start, config.data.workers)
        wanted = config.method.needs_labels
        return Feed(streamed_batches(train, steps, session.mesh, report, labels=wanted), train)
    if isinstance(train, Records):
        share = (jax.process_index(), jax.process_count())
        rows = RecordBatches(train, config.batch_size, config.seed, *share).steps(start)
        return Feed(record_batches(rows, session.mesh), train)
    split = resident(train, session.mesh)
    batches = resident_batches(
        split, batch_size=config.batch_size, seed=config.seed, mesh=session.mesh, start=start
    )
    return Feed(batches, split.examples)


def streamed_batches(
    stream: Stream,
    steps: Generator[list[Piece], None, None],
    mesh: Mesh,
    report: Callable[[str], None],
    *,
    labels: bool = False,
) -> Generator[Batch, None, None]:
    """Batches of crops; a thread prefetches the next ones to the devices.

    Args:
      stream: for the names of damaged images.
      steps: this process's pieces of each step.
      mesh: the devices of all processes.
      report: called once with a sentence on each damaged image.
      labels: whether every image must have a label.

    Yields:
      A batch whose images are a tuple of crops, sharded over the devices by rows.

    Raises:
      UserError: an image has no label.
    """
    damaged: set[int] = set()

    def join() -> Batch:
        pieces = next(steps)
        for piece in pieces:
            if labels and (piece.labels < 0).any():
                name = stream.name(int(piece.indices[np.argmax(piece.labels < 0)]))
                raise UserError(
                    f"'{name}' has no label (-1), and the method learns from labels; choose a "
                    "split whose images all have one, or another --method."
                )
            for index in piece.wanted[piece.wanted != piece.indices].tolist():
                if index not in damaged:
                    damaged.add(index)
                    name = stream.name(index)
                    report(
                        f"{len(damaged)} damaged image(s) left out so far: '{name}'; the next one "
                        "takes its place."
                    )
        crops = tuple(map(_join, zip(*(piece.crops for piece in pieces), strict=True)))
        return Batch(crops, _join([p.indices for p in pieces]), _join([p.labels for p in pieces]))

    yield from _prefetched(join, mesh, close=steps.close)


def record_batches(steps: Generator[Rows, None, None], mesh: Mesh) -> Generator[Batch, None, None]:
    """Batches of examples that Grain reads; a thread prefetches the next ones to the devices.

    Args:
      steps: this process's rows of each step.
      mesh: the devices of all processes.

    Yields:
      A batch, sharded over the devices by rows.
    """

    def copy() -> Batch:
        # The worker's shared memory is only valid until the next batch.
        rows = next(steps)
        return Batch(
            trees.map_leaves(np.array, rows.examples), np.array(rows.indices), np.array(rows.labels)
        )

    yield from _prefetched(copy, mesh, close=steps.close)


def _prefetched(
    make: Callable[[], Batch], mesh: Mesh, *, close: Callable[[], None]
) -> Generator[Batch, None, None]:
    """The batches that `make` returns; a thread puts them on the devices ahead of their use."""
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
    """Concatenates into new memory: a worker's shared memory is only valid during its piece."""
    joined = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
    return np.concatenate([np.asarray(part) for part in parts], out=joined)
