"""Which part of an image is cropped, from uniform draws."""

import math
from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", jax.Array, np.ndarray)

CROP_DRAWS = 22  # of a box: ten areas, ten ratios, and the place


def crop_box(
    draws: Array,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Array, Array, Array, Array]:
    """The boxes of a random resized crop: area uniform, log of width over height uniform.

    The first of ten candidates that fits is taken, at a uniform place; if none fits, the largest
    centerd box whose ratio is allowed. Boxes are whole pixels.

    Draws of NumPy give boxes of NumPy, so that hosts that crop follow the same rule; a length that falls between two
    pixels may round to the other one there.

    Args:
      draws: [b, 22], uniform in [0, 1): ten areas, ten ratios, and the place.
      height, width: sides of the images in pixels.
      scale: least and greatest area, as a fraction of the image's.
      ratio: least and greatest width over height.

    Returns:
      top, left, height, width in pixels, int32, [b] each.

    References:
      torchvision's ``RandomResizedCrop``.
    """
    xp = draws.__array_namespace__()
    area, aspect, place = draws[:, :10], draws[:, 10:20], draws[:, 20:]
    area = height * width * between(*scale, area)
    aspect = xp.exp(between(math.log(ratio[0]), math.log(ratio[1]), aspect))
    w, h = xp.round(xp.sqrt(area * aspect)), xp.round(xp.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, some = xp.argmax(fits, axis=1, keepdims=True), xp.any(fits, axis=1)

    whole_h = min(height, max(1, round(width / ratio[0])))
    whole_w = min(width, max(1, round(height * ratio[1])))
    h = xp.where(some, xp.take_along_axis(h, first, axis=1)[:, 0], whole_h)
    w = xp.where(some, xp.take_along_axis(w, first, axis=1)[:, 0], whole_w)

    def start(side: int, length: Array, draw: Array) -> Array:
        free = side - length
        return xp.floor(xp.where(some, draw * (free + 1), free / 2))

    box = start(height, h, place[:, 0]), start(width, w, place[:, 1]), h, w
    return tuple(value.astype(xp.int32) for value in box)


def between(low: float, high: float, draw: Array) -> Array:
    """Uniform in [low, high), from a draw that is uniform in [0, 1)."""
    return low + (high - low) * draw
