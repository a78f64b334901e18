"""Batches of crops, computed in pieces by Grain's worker processes.

Piece n of a stream holds rows of step n // per_step. Its images and crop boxes depend only on the
seed, the step and the row of the global batch. The stream therefore has no state: a resumed run
continues with the first piece of its step, for any number of workers and processes.
"""

import dataclasses
import functools
import math
import multiprocessing
import os
import threading
from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np

from jaxclr.data.crops import Boxes, Crop, crop_draws, take_crops
from jaxclr.data.images import Encoded
from jaxclr.data.shuffling import epoch_order
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError

UNGUARDED = 64  # exit status of a worker whose main file would train; EX_USAGE of sysexits.h
PIECE_BYTES = 2**22  # size of a piece; a worker holds a few of them
ENDLESS = 2**60


class Piece(NamedTuple):
    """Some rows of a batch.

    Attributes:
      crops: uint8 [n, size, size, C] for each view.
      indices: indices of the images in the split, int32 [n].
      labels: int32 [n], -1 for unlabeled images.
      wanted: indices in the epoch's order, int32 [n]; they differ from `indices` where a damaged
        image was replaced.
    """

    crops: tuple[np.ndarray, ...]
    indices: np.ndarray
    labels: np.ndarray
    wanted: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of one process's rows of all batches; a random-access source.

    Attributes:
      stream: the split.
      crops: the crop of each view.
      batch_size: rows of the global batch; the last N mod batch_size images of an epoch's order are
        left out.
      seed: seed of epoch orders and crop boxes.
      shard: index of this process, which computes rows shard * b ... (shard + 1) * b - 1 of the
        global batch.
      shards: number of processes; each has b = batch_size / shards rows.
    """

    stream: Stream
    crops: tuple[Crop, ...]
    batch_size: int
    seed: int
    shard: int = 0
    shards: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.shards or not 0 <= self.shard < self.shards:
            raise ValueError(
                f"shards must divide the batch of {self.batch_size} rows and shard must be below "
                f"shards, got shards = {self.shards} and shard = {self.shard}."
            )

    @property
    def per_step(self) -> int:
        """Number of pieces in a step."""
        row = sum(crop.size**2 for crop in self.crops) * self.stream.channels
        return math.ceil(self._share * row / PIECE_BYTES)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, number: int) -> Piece:
        step, part = divmod(int(number), self.per_step)
        first, last = (self._share * bound // self.per_step for bound in (part, part + 1))
        batch_rows = self.shard * self._share + np.arange(first, last)
        epoch, offset = divmod(step, self.stream.size // self.batch_size)
        wanted = _order(self.seed, epoch, self.stream.size)[offset * self.batch_size + batch_rows]
        boxes = Boxes(self.crops, crop_draws(self.seed, step, batch_rows, len(self.crops)))

        def crop(row: int, file: Encoded) -> tuple[np.ndarray, ...]:
            return take_crops(file, boxes, row, self.stream.data)

        rows = self.stream.fetch(wanted.tolist(), crop)
        views = tuple(np.stack(views) for views in zip(*rows.made, strict=True))
        return Piece(views, rows.indices, rows.labels, wanted)

    @property
    def _share(self) -> int:
        return self.batch_size // self.shards

    def steps(self, start: int, workers: int | None) -> Generator[list[Piece], None, None]:
        """Yields the pieces of each step, from step `start`; it never ends.

        Args:
          start: the first step.
          workers: number of worker processes; 0: threads of this process; None: one per core.

        Raises:
          UserError: an image is damaged (see `Stream.fetch`), or a worker died.
        """
        iterator = read_in_workers(self, start * self.per_step, workers)
        try:
            while True:
                yield [next(iterator) for _ in range(self.per_step)]
        finally:
            iterator.close()


def end_if_worker() -> None:
    """Ends this process if it is a worker that imports the main file of a program, silently.

    Its parent says what is wrong. multiprocessing itself would raise RuntimeError later, after the
    data were loaded and the model compiled.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


def read_in_workers(source: Any, start: int, workers: int | None) -> Generator[Any, None, None]:
    """Yields the items of a random-access source in order, read by Grain.

    Args:
      source: has `len` and `[i]`; it is pickled into worker processes.
      start: index of the first item.
      workers: number of worker processes; 0: threads of this process; None: one per core.

    Raises:
      UserError: a worker died. Other errors of workers are raised unchanged.
    """
    # Imported here because they are slow to import, and data in memory do not need them.
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads its flags, and jaxclr does not run absl.app
    workers = os.cpu_count() or 1 if workers is None else workers
    # In a worker, one thread reads while the other decodes.
    threads = 2 if workers else min(16, os.cpu_count() or 1)
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    items = grain.MapDataset.source(source)[start:].to_iter_dataset(read)
    if workers:
        items = items.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
            worker_init_fn=_end_with_parent,
        )
    iterator: Any = iter(items)
    try:
        yield from iterator
    except RuntimeError as error:
        # Grain's message for a dead worker; other errors keep their type.
        if "terminated unexpectedly" not in str(error):
            raise
        if f"exit code {UNGUARDED}." in str(error):
            raise UserError(
                "A data worker process imports the main file of the program again, and that "
                'trains: put its code under `if __name__ == "__main__":`, or set workers to 0.'
            ) from error
        raise UserError(
            f"A data worker process died ({str(error).partition('.')[0]}): it was killed or ran "
            f"out of memory. There were {workers} workers; use fewer with --data.workers. The same "
            "command continues from the newest checkpoint."
        ) from error
    finally:
        iterator.close()


def _end_with_parent(*_: int) -> None:
    """Ends this worker when its parent ends, also if that was killed and could not stop it."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return epoch_order(seed, epoch, size)
