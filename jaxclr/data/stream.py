"""Images that stay in their files until they are needed."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from jaxclr.data.images import Encoded, Unreadable, decode, in_order, unreadable
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError

SAMPLE = 512  # images on which channel statistics are measured
TRIES = 100  # so many damaged images in a row are no accident


class Stored(Protocol):
    """Encoded images by row number. It is pickled into workers: it holds names, not images."""

    def read(self, rows: Sequence[int]) -> list[tuple[Encoded, int]]:
        """The file of each row, and its label, -1 where there are none."""


class Rows(NamedTuple):
    """What was made of some images of a split.

    Attributes:
      made: arrays for each, uint8 [h, w, C].
      indices: the places in the split of the images that it was made of, int32 [n].
      labels: their labels, int32 [n], -1 where there are none.
      names: their files.
    """

    made: list[tuple[np.ndarray, ...]]
    indices: np.ndarray
    labels: np.ndarray
    names: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A split whose images are read when they are asked for.

    Attributes:
      stored: where the images are.
      rows: their row numbers there, int64 [N].
      labeled: whether they have labels.
      channels: of every image, once decoded.
      data: channels and skip_corrupt.
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
        """Calls `make` on images, with the position in `indices` and the file of each.

        The image after a damaged one takes its place, if data.skip_corrupt: a rule that needs no
        memory of what was damaged before, so that any process at any time finds the same images.

        Raises:
          UserError: a file is damaged and data.skip_corrupt is off, or differs from the others in
            channels.
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
                        raise unreadable(error) from error
                    index = (index + 1) % self.size
                    file, label = self.stored.read([int(self.rows[index])])[0]
            else:
                raise UserError(
                    f"{TRIES} files in a row cannot be read as images, the last of them "
                    f"'{file.name}'."
                )
            if made[-1][0].shape[-1] != self.channels:
                raise self._misfit(file.name)
            used.append(index)
            labels.append(label)
            names.append(file.name)
        return Rows(made, np.asarray(used, np.int32), np.asarray(labels, np.int32), names)

    def plain(
        self, size: int, *, batch: int, indices: Sequence[int] | None = None
    ) -> Iterator[Rows]:
        """Batches of images as `decode` resizes and crops them, uint8 [size, size, C], by threads.

        Args:
          size: their side.
          batch: how many at a time; the last are fewer.
          indices: which; None: all.
        """
        data = dataclasses.replace(self.data, image_size=size)
        indices = range(self.size) if indices is None else indices
        starts = range(0, len(indices), batch)

        def make(_, file):
            return (decode(file, data),)

        def some(start):
            return self.fetch(indices[start : start + batch], make)

        workers = min(16, os.cpu_count() or 1)
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            for _, rows in in_order(pool, some, ((start,) for start in starts), ahead=workers + 1):
                yield rows

    def sample(self, size: int) -> np.ndarray:
        """Images spread evenly over the split, uint8 [n, size, size, C], n = min(N, SAMPLE)."""
        indices = np.linspace(0, self.size - 1, min(self.size, SAMPLE)).astype(int).tolist()
        batches = self.plain(size, batch=32, indices=indices)
        return np.stack([image for rows in batches for (image,) in rows.made])

    def _misfit(self, name: str) -> UserError:
        """Only channels that are "as_is" can differ."""
        kinds = ("RGB", "grayscale") if self.channels == 1 else ("grayscale", "RGB")
        return UserError(
            f"'{name}' is {kinds[0]}, and images before it are {kinds[1]}. "
            "Set --data.channels rgb (or gray) to turn all images into one kind."
        )
