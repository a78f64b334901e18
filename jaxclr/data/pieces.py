"""Batches of crops in pieces, each a function of its number, made by Grain's worker processes.

Piece n of a stream holds rows of step n // pieces_per_step; which images these are and where they
are cropped follows from (seed, step, place in the global batch) alone. So there is nothing to
remember: a run that stops goes on with the piece of its step, with any number of workers and
processes.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxclr.data.crops import Crop, crop_draws, take_crops
from jaxclr.data.shuffling import epoch_order
from jaxclr.data.stream import Stream
from jaxclr.errors import UserError

PIECE_BYTES = 2**22  # of crops: what a worker makes at a time, and holds a few of
ENDLESS = 2**60


class Piece(NamedTuple):
    """Some rows of a batch.

    Attributes:
      crops: for each view uint8 [n, size, size, C].
      indices: the images' places in the split, int32 [n].
      labels: int32 [n], -1 where there are none.
      wanted: the places that the order names, int32 [n]; they differ from `indices` where an image
        is damaged.
    """

    crops: tuple[np.ndarray, ...]
    indices: np.ndarray
    labels: np.ndarray
    wanted: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of one process's share of all batches, by number.

    Attributes:
      stream: the split.
      crops: one for each view.
      batch_size: rows of the global batch; the last N mod batch_size images of an epoch's order are
        left out.
      seed: of orders and boxes.
      shard: number of this process, which makes rows shard * b ... (shard + 1) * b - 1 of the
        global batch.
      shards: number of processes, over which batch_size is spread evenly.
    """

    stream: Stream
    crops: tuple[Crop, ...]
    batch_size: int
    seed: int
    shard: int = 0
    shards: int = 1

    def __post_init__(self):
        if self.batch_size % self.shards or not 0 <= self.shard < self.shards:
            raise ValueError(
                f"shard {self.shard} of {self.shards} cannot have its share of {self.batch_size} "
                "rows."
            )

    @property
    def per_step(self) -> int:
        """Pieces in a step."""
        row = sum(crop.size**2 for crop in self.crops) * self.stream.channels
        return math.ceil(self._share * row / PIECE_BYTES)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, number: int) -> Piece:
        step, part = divmod(int(number), self.per_step)
        first, last = (self._share * bound // self.per_step for bound in (part, part + 1))
        places = self.shard * self._share + np.arange(first, last)
        epoch, offset = divmod(step, self.stream.size // self.batch_size)
        wanted = _order(self.seed, epoch, self.stream.size)[offset * self.batch_size + places]
        draws = crop_draws(self.seed, step, places, len(self.crops))

        def crop(row, file):
            return take_crops(file, self.crops, draws[row], self.stream.data)

        rows = self.stream.fetch(wanted.tolist(), crop)
        views = tuple(np.stack(views) for views in zip(*rows.made, strict=True))
        return Piece(views, rows.indices, rows.labels, wanted)

    @property
    def _share(self) -> int:
        return self.batch_size // self.shards

    def steps(self, start: int, workers: int | None) -> Iterator[list[Piece]]:
        """All pieces of each step from `start` on, without end.

        Args:
          start: number of the first step.
          workers: processes; 0: threads of this one; None: as many processes as there are cores.

        Raises:
          UserError: an image is damaged, see `Stream.fetch`; or a worker died.
        """
        iterator = read_in_workers(self, start * self.per_step, workers)
        try:
            while True:
                yield [next(iterator) for _ in range(self.per_step)]
        finally:
            iterator.close()


def read_in_workers(source: Any, start: int, workers: int | None) -> Iterator[Any]:
    """The items of a random-access source from one on, in order, read by Grain.

    Args:
      source: with `len` and `[i]`, pickled into worker processes.
      start: number of the first item.
      workers: processes; 0: threads of this one; None: as many processes as there are cores.

    Raises:
      UserError: a worker died. Its other errors are raised as they are.
    """
    # Imported where they are wanted: they bring much, and data in memory go without.
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own, which no main function here parses
    workers = os.cpu_count() or 1 if workers is None else workers
    # A second thread reads while the first decodes.
    threads = 2 if workers else min(16, os.cpu_count() or 1)
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    items = grain.MapDataset.source(source)[start:].to_iter_dataset(read)
    if workers:
        items = items.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        )
    iterator = iter(items)
    try:
        yield from iterator
    except RuntimeError as error:
        # Grain's words for it; any other error of a worker comes as what it was there.
        if "terminated unexpectedly" not in str(error):
            raise
        raise UserError(
            f"A process that reads data died ({str(error).partition('.')[0]}): was it killed, or short of "
            f"memory? There were {workers}; --data.workers sets fewer. The same command goes on from the newest "
            "checkpoint."
        ) from error
    finally:
        iterator.close()


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return epoch_order(seed, epoch, size)
