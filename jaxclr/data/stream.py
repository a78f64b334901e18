"""Splits whose images are read from their files on demand."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jaxclr.data.images import decode, in_order, unreadable
from jaxclr.data.pixels import Encoded, Unreadable, kind_of, open_image
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError
from jaxclr.text import displayable

SAMPLE = 512  # images from which channel statistics are computed
TRIES = 100  # consecutive damaged images before a stream gives up


class Stored(Protocol):
    """Encoded images by row. It is pickled into workers, and so holds names, not images."""

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """The file and label of each row; the label is -1 for unlabeled images."""
        ...


class Rows(NamedTuple):
    """Arrays computed from some images of a split.

    Attributes:
      made: arrays of each image, uint8 [h, w, C].
      indices: indices of the images in the split, int32 [n].
      labels: labels of the images, int32 [n], -1 for unlabeled ones.
      names: files of the images.
    """

    made: list[tuple[np.ndarray, ...]]
    indices: np.ndarray
    labels: np.ndarray
    names: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A split whose images are read on demand.

    Attributes:
      stored: the encoded images.
      rows: rows of the split in `stored`, int64 [N].
      labeled: whether images have labels.
      channels: number of channels of all images after decoding.
      data: how files are read, and skip_corrupt.
      why: the reason for streaming, for the user.
    """

    stored: Stored
    rows: np.ndarray
    labeled: bool
    channels: int
    data: Data
    why: str

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.rows)

    def name(self, index: int) -> str:
        """The file of an image."""
        return self.stored.read([int(self.rows[index])])[0][0].name

    def fetch(
        self, indices: Sequence[int], make: Callable[[int, Encoded], tuple[np.ndarray, ...]]
    ) -> Rows:
        """Calls `make(position, file)` for images, with their position in `indices`.

        With data.skip_corrupt, a damaged image is replaced by the next one of the split. This rule
        has no state, so that every process reads the same images at any time.

        Raises:
          UserError: a file is damaged and data.skip_corrupt is off, or images differ in channels.
        """
        files = self.stored.read([int(row) for row in self.rows[np.asarray(indices)]])
        made, used, labels, names = [], [], [], []
        for position, (index, (file, label)) in enumerate(zip(indices, files, strict=True)):
            for _ in range(TRIES):
                try:
                    made.append(make(position, file))
                    break
                except Unreadable as error:
                    if not self.data.skip_corrupt:
                        raise unreadable([error]) from error
                    index = (index + 1) % self.size
                    file, label = self.stored.read([int(self.rows[index])])[0]
            else:
                raise UserError(
                    f"{TRIES} consecutive files cannot be read as images, the last of them "
                    f"'{displayable(file.name)}'. Repair the data set."
                )
            if made[-1][0].shape[-1] != self.channels:
                raise self._misfit(file.name)
            used.append(index)
            labels.append(label if self.labeled else -1)
            names.append(file.name)
        return Rows(made, np.asarray(used, np.int32), np.asarray(labels, np.int32), names)

    def plain(
        self, size: int, *, batch: int, indices: Sequence[int] | None = None
    ) -> Iterator[Rows]:
        """Yields batches of images as `decode` resizes them, uint8 [size, size, C], using threads.

        Args:
          size: side of the images in pixels.
          batch: images in a batch; the last batch may have fewer.
          indices: indices of the images; None: all.
        """
        indices = range(self.size) if indices is None else indices
        starts = range(0, len(indices), batch)
        yield from self.plain_batches(size, (indices[start : start + batch] for start in starts))

    def plain_batches(self, size: int, indices: Iterable[Sequence[int]]) -> Iterator[Rows]:
        """The same for batches whose indices are given."""
        data = dataclasses.replace(self.data, image_size=size)

        def make(_: int, file: Encoded) -> tuple[np.ndarray]:
            return (decode(file, data).pixels,)

        fetch = lambda some: self.fetch(some, make)
        workers = min(16, os.cpu_count() or 1)
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            jobs = ((some,) for some in indices)
            for _, rows in in_order(pool, fetch, jobs, ahead=workers + 1):
                yield rows

    def sample(self, size: int) -> np.ndarray:
        """Evenly spaced images of the split, uint8 [n, size, size, C], n = min(N, SAMPLE)."""
        batches = self.plain(size, batch=32, indices=self._spread())
        return np.stack([image for rows in batches for (image,) in rows.made])

    def count_alpha(self) -> tuple[int, int]:
        """How many of the images of `sample` may have transparent pixels, and their number."""
        indices, found = self._spread(), 0
        for index in indices:
            ((file, _),) = self.stored.read([int(self.rows[index])])
            # An image that cannot be read is reported where it is decoded.
            with contextlib.suppress(Unreadable), open_image(file) as image:
                found += kind_of(image, file, self.data).alpha
        return found, len(indices)

    def _spread(self) -> list[int]:
        return np.linspace(0, self.size - 1, min(self.size, SAMPLE)).astype(int).tolist()

    def _misfit(self, name: str) -> UserError:
        """The error for an image of other channels; only "as_is" channels can differ."""
        kinds = ("RGB", "grayscale") if self.channels == 1 else ("grayscale", "RGB")
        return UserError(
            f"'{displayable(name)}' is {kinds[0]}, and images before it are {kinds[1]}. "
            "Set --data.channels rgb (or gray) to convert all images."
        )
