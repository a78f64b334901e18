"""Random-access data sources, read by Grain's workers."""

import dataclasses
import functools
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxclr import trees
from jaxclr.data.dataset import Dataset
from jaxclr.data.pieces import ENDLESS, read_in_workers
from jaxclr.data.shuffling import epoch_order
from jaxclr.errors import UserError

LABEL = "label"
SAMPLE = 512  # examples from which channel statistics are computed


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Random-access sources: objects with `len` and `[i]`, Grain's protocol for data sources.

    Every item is a dict of arrays, of the same shapes and types in all items. An integer "label" is
    optional; -1 means no label. Batches are read and stacked by Grain's worker processes, which
    import the program's main file again: put its code under `if __name__ == "__main__":`.

    Args:
      train: the training examples.
      test: held-out examples, or None.
      classes: class names; if empty, the numbers from 0 to the largest label, for which all items
        are read once.
      workers: number of worker processes; 0: threads of this process; None: one per core.
      mean: mean of each image channel, in units of [0, 1]; None: computed from a sample.
      std: standard deviation of each channel, likewise.

    Raises:
      UserError: a source has no length or no items, or its items are not dicts.
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
    """Examples, a tree of arrays [n, ...]; their indices in the split and labels, int32 [n]."""

    examples: Any
    indices: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """A split whose examples are read on demand.

    Attributes:
      source: the random-access source.
      labeled: whether items have labels.
      workers: number of worker processes.
      why: the reason for reading on demand, for the user.
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
        """Number of image channels; None for other data."""
        images = trees.images_of(self.example)
        return None if images is None else images.shape[-1]

    @functools.cached_property
    def example(self) -> Any:
        """The first example as a batch of one."""
        return self.read([0]).examples

    def read(self, indices: Sequence[int]) -> Rows:
        """The examples with these indices.

        Raises:
          UserError: items differ in shape or type.
        """
        examples, labels = [], []
        for index in indices:
            item = dict(self.source[int(index)])
            label = int(item.pop(LABEL, -1))
            labels.append(label if self.labeled else -1)
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
        """Labels of all examples, int32 [N], -1 for unlabeled ones; this reads every item."""
        return np.asarray([int(self.source[i].get(LABEL, -1)) for i in range(self.size)], np.int32)

    def sample(self) -> np.ndarray:
        """Evenly spaced images of the split, uint8 [n, H, W, C], n = min(N, SAMPLE)."""
        indices = np.linspace(0, self.size - 1, min(self.size, SAMPLE)).astype(int).tolist()
        images = trees.images_of(self.read(indices).examples)
        if images is None:
            raise TypeError("The source has no images to sample.")
        return images


@dataclasses.dataclass(frozen=True, eq=False)
class RecordBatches:
    """One process's rows of all batches; a random-access source.

    A batch depends only on the seed and the step.

    Attributes:
      records: the split.
      batch_size: rows of the global batch; the last N mod batch_size examples of an epoch's order
        are left out.
      seed: seed of epoch orders.
      shard: index of this process, which reads rows shard * b ... (shard + 1) * b - 1 of a batch.
      shards: number of processes; each has b = batch_size / shards rows.
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

    def steps(self, start: int) -> Generator[Rows, None, None]:
        """Yields the batches from step `start`, read by Grain; it never ends."""
        return read_in_workers(self, start, self.records.workers)


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return epoch_order(seed, epoch, size)


def load(data: Source) -> Dataset:
    """The train and test splits of a source."""
    split = lambda source: Records(source, LABEL in source[0], data.workers)
    train, test = split(data.train), None if data.test is None else split(data.test)
    classes = tuple(map(str, data.classes))
    if train.labeled and not classes:
        labeled = [train, test] if test is not None and test.labeled else [train]
        largest = max(int(records.labels().max()) for records in labeled)
        classes = tuple(str(value) for value in range(largest + 1))
    return Dataset("source", train, test, classes, ())


def _check_source(name: str, source: Any) -> None:
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise UserError(
            f"data.Source {name} must have len() and [i], got {type(source).__name__}; "
            "give a random-access source."
        )
    if not len(source):
        raise UserError(f"data.Source {name} has no items.")
    item = source[0]
    if not isinstance(item, dict) or not set(item) - {LABEL}:
        raise UserError(
            f"data.Source {name} must have items that are dicts of arrays, with an optional "
            f"integer 'label', got {type(item).__name__} items."
        )
    for leaf, value in trees.named_leaves(
        {key: value for key, value in item.items() if key != LABEL}
    ):
        if np.asarray(value).dtype.kind not in "biufc":
            raise UserError(
                f"data.Source {name}: '{leaf}' of an item must be numeric, got "
                f"{np.asarray(value).dtype}."
            )
