"""Random crops on the host: all crops of an image from one decoding.

The boxes depend only on the seed, the step and the row of the global batch, and are those that
`jaxclr.augment` draws on a device. Pixels differ slightly: Pillow resamples with the same filter
but rounds to 8 bits, and a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, provided that no
crop is enlarged.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxclr.augment.boxes import CROP_DRAWS, crop_box
from jaxclr.data import threefry
from jaxclr.data.images import to_array
from jaxclr.data.pixels import Encoded, decoded, kind_of, open_image
from jaxclr.data.source_options import Data

REDUCTIONS = (8, 4, 2)
TOGETHER = 16  # rows whose boxes are computed at once


class Crop(NamedTuple):
    """The crop of a view: output side in pixels, ranges of the box's area and aspect ratio."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]


def crop_draws(seed: int, step: int, rows: np.ndarray, views: int) -> np.ndarray:
    """Uniform draws of the boxes of some rows of the global batch: float32 [b, views, 22]."""
    keys = threefry.fold_in(threefry.fold_in(threefry.key(seed), step), rows[:, None])
    return threefry.uniform(threefry.fold_in(keys, np.arange(views)), CROP_DRAWS)


class Boxes:
    """The boxes of the crops of some images.

    They are computed for several rows at once: NumPy's calls cost more than their arithmetic.

    Args:
      crops: one for each view.
      draws: [b, views, 22], from `crop_draws`.
    """

    def __init__(self, crops: Sequence[Crop], draws: np.ndarray):
        self.crops, self._draws = crops, draws
        self._known: dict[tuple[int, int, int], list[list[np.ndarray]]] = {}

    def of(self, row: int, height: int, width: int) -> list[np.ndarray]:
        """Top, left, height and width for each view of row `row`, an image of that size."""
        first = row - row % TOGETHER
        key = first, height, width
        if key not in self._known:
            draws = self._draws[first : first + TOGETHER]
            views = [
                np.stack(crop_box(draws[:, view], height, width, crop.scale, crop.ratio), axis=1)
                for view, crop in enumerate(self.crops)
            ]
            self._known[key] = [list(boxes) for boxes in zip(*views, strict=True)]
        return self._known[key][row - first]


def take_crops(file: Encoded, boxes: Boxes, row: int, data: Data) -> tuple[np.ndarray, ...]:
    """The crops of one image.

    Args:
      file: the image, of any size.
      boxes: of the crops.
      row: of the image in `boxes`.
      data: how files are read.

    Returns:
      uint8 [size, size, C] for each view.

    Raises:
      Unreadable: as of `decode`.
    """
    with open_image(file) as image:
        kind = kind_of(image, file, data)
        width, height = kind.size
        mine = list(zip(boxes.of(row, height, width), boxes.crops, strict=True))
        least = min(min(box[2:].tolist()) / crop.size for box, crop in mine)
        reduction = next((r for r in REDUCTIONS if r <= least), 1)
        reduced_size = (image.width // reduction, image.height // reduction)
        pixels, _ = decoded(image, file, kind, data, reduced_size)
    reduced = round(width / pixels.width)  # above 1 for JPEGs only
    return tuple(_cut(pixels, box / reduced, crop.size) for box, crop in mine)


def _cut(image: Image.Image, box: np.ndarray, size: int) -> np.ndarray:
    """The box (top, left, height, width) as a square."""
    top, left, height, width = box.tolist()
    corners = (left, top, min(left + width, image.width), min(top + height, image.height))
    return to_array(image.resize((size, size), Image.Resampling.BILINEAR, box=corners))
