"""Random-access sources of a user's own, read by Grain's workers."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclr import trees
from jaxclr.data.dataset import Dataset
from jaxclr.data.pieces import ENDLESS, read_in_workers
from jaxclr.data.shuffling import epoch_order
from jaxclr.errors import UserError

LABEL = "label"
SAMPLE = 512  # examples on which channel statistics are measured


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Random-access sources: anything with `len` and `[i]`, Grain's protocol for data sources.

    An item is a dict of arrays of the same shapes and types in every item, with an integer "label"
    if there are labels (-1 for none). Batches are read and stacked by Grain's worker processes,
    which import the program's main file again: keep its work under `if __name__ == "__main__":`.

    Args:
      train: the training examples.
      test: held-out examples, or None.
      classes: names of the classes; empty: the numbers from 0 to the largest label, for which all
        labels are read once.
      workers: processes that read; 0: threads of this process; None: as many as there are cores.
      mean: mean of each channel of images, scaled to [0, 1]; None: measured on a sample.
      std: standard deviation of each channel likewise.

    Raises:
      UserError: a source has no length or items, or its items are not dicts.
    """

    train: Any
    test: Any = None
    classes: tuple[str, ...] = ()
    workers: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, source in (("train", self.train), ("test", self.test)):
            if source is not None:
                _check_source(name, source)


class Rows(NamedTuple):
    """Some examples: a tree of arrays [n, ...], their places in the split and labels, int32 [n]."""

    examples: Any
    indices: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """A split whose examples are read when they are asked for.

    Attributes:
      source: of items.
      labeled: whether items have labels.
      workers: processes that read.
      why: the reason for reading them as they are needed, for the user.
    """

    source: Any
    labeled: bool
    workers: int | None
    why: str = "the source is read item by item"

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.source)

    @property
    def channels(self) -> int | None:
        """Of images; None for other data."""
        images = trees.images_of(self.example)
        return None if images is None else images.shape[-1]

    @functools.cached_property
    def example(self) -> Any:
        """The first example as a batch of one."""
        return self.read([0]).examples

    def read(self, indices: Sequence[int]) -> Rows:
        """The examples of these places.

        Raises:
          UserError: an item is no dict of arrays, lacks its label, or differs from the first in shape or type.
        """
        examples, labels = [], []
        for index in indices:
            item = dict(self.source[int(index)])
            labels.append(int(item.pop(LABEL)) if self.labeled else -1)
            examples.append(item)
        try:
            stacked = trees.stack(examples)
        except (ValueError, KeyError) as error:
            raise UserError(
                f"Items {indices[0]} to {indices[-1]} of the source differ in shape ({error}); "
                "give all items the same shapes."
            ) from error
        return Rows(stacked, np.asarray(indices, np.int32), np.asarray(labels, np.int32))

    def labels(self) -> np.ndarray:
        """Labels of all examples, int32 [N], -1 where there are none; every item is read."""
        return np.asarray([int(self.source[i].get(LABEL, -1)) for i in range(self.size)], np.int32)

    def sample(self) -> np.ndarray:
        """Images spread evenly over the split, uint8 [n, H, W, C], n = min(N, SAMPLE)."""
        indices = np.linspace(0, self.size - 1, min(self.size, SAMPLE)).astype(int).tolist()
        return trees.images_of(self.read(indices).examples)


@dataclasses.dataclass(frozen=True, eq=False)
class RecordBatches:
    """One process's rows of all batches, by number; a batch is a function of (seed, step) alone.

    Attributes:
      records: the split.
      batch_size: rows of the global batch; the last N mod batch_size of an epoch's order are left out.
      seed: of the orders.
      shard: number of this process, which reads rows shard * b ... (shard + 1) * b - 1 of a batch.
      shards: number of processes, over which batch_size is spread evenly.
    """

    records: Records
    batch_size: int
    seed: int
    shard: int = 0
    shards: int = 1

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> Rows:
        epoch, offset = divmod(int(step), self.records.size // self.batch_size)
        share = self.batch_size // self.shards
        first = offset * self.batch_size + self.shard * share
        order = _order(self.seed, epoch, self.records.size)
        return self.records.read(order[first : first + share].tolist())

    def steps(self, start: int) -> Iterator[Rows]:
        """The batches from a step on, without end, read by Grain."""
        return read_in_workers(self, start, self.records.workers)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return epoch_order(seed, epoch, size)


def load(data: Source) -> Dataset:
    """The splits of a source."""
    splits = [
        source if source is None else Records(source, LABEL in source[0], data.workers)
        for source in (data.train, data.test)
    ]
    classes = tuple(map(str, data.classes))
    if splits[0].labeled and not classes:
        largest = max(
            int(split.labels().max()) for split in splits if split is not None and split.labeled
        )
        classes = tuple(str(value) for value in range(largest + 1))
    return Dataset("source", splits[0], splits[1], classes, ())


def _check_source(name: str, source: Any) -> None:
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise UserError(
            f"data.Source {name} is {type(source).__name__}, which has no len() and [i]; give a random-access source."
        )
    if not len(source):
        raise UserError(f"data.Source {name} has no items.")
    item = source[0]
    if not isinstance(item, dict) or not set(item) - {LABEL}:
        raise UserError(
            f"data.Source {name} gives {type(item).__name__} items; give dicts of arrays, with an integer 'label' if any."
        )
    for leaf, value in trees.named_leaves(
        {key: value for key, value in item.items() if key != LABEL}
    ):
        if np.asarray(value).dtype.kind not in "biufc":
            raise UserError(
                f"data.Source {name}: '{leaf}' of an item has type {np.asarray(value).dtype}; give numbers."
            )
