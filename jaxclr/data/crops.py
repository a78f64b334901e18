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


class Crop(NamedTuple):
    """The crop of a view: output side in pixels, ranges of the box's area and aspect ratio."""

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]


def crop_draws(seed: int, step: int, rows: np.ndarray, views: int) -> np.ndarray:
    """Uniform draws of the boxes of some rows of the global batch: float32 [b, views, 22]."""
    keys = threefry.fold_in(threefry.fold_in(threefry.key(seed), step), rows[:, None])
    return threefry.uniform(threefry.fold_in(keys, np.arange(views)), CROP_DRAWS)


def take_crops(
    file: Encoded, crops: Sequence[Crop], draws: np.ndarray, data: Data
) -> tuple[np.ndarray, ...]:
    """The crops of one image.

    Args:
      file: the image, of any size.
      crops: one for each view.
      draws: [views, 22], from `crop_draws`.
      data: how files are read.

    Returns:
      uint8 [size, size, C] for each view.

    Raises:
      Unreadable: as of `decode`.
    """
    with open_image(file) as image:
        kind = kind_of(image, file, data)
        width, height = kind.size
        boxes = [
            np.concatenate(crop_box(draws[v, None], height, width, crop.scale, crop.ratio))
            for v, crop in enumerate(crops)
        ]
        least = min(min(box[2:]) / crop.size for box, crop in zip(boxes, crops, strict=True))
        reduction = next((r for r in REDUCTIONS if r <= least), 1)
        reduced_size = (image.width // reduction, image.height // reduction)
        pixels, _ = decoded(image, file, kind, data, reduced_size)
    reduced = round(width / pixels.width)  # above 1 for JPEGs only
    return tuple(
        _cut(pixels, box / reduced, crop.size) for box, crop in zip(boxes, crops, strict=True)
    )


def _cut(image: Image.Image, box: np.ndarray, size: int) -> np.ndarray:
    """The box (top, left, height, width) as a square."""
    top, left, height, width = box.tolist()
    corners = (left, top, min(left + width, image.width), min(top + height, image.height))
    return to_array(image.resize((size, size), Image.Resampling.BILINEAR, box=corners))
