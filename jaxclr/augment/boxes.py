"""Crop boxes from uniform draws."""

import math
from typing import TypeVar

import jax
import numpy as np

Array = TypeVar("Array", jax.Array, np.ndarray)

CROP_DRAWS = 22
"""Random draws of a box: ten areas, ten aspect ratios, and the position."""


def crop_box(
    draws: Array,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Array, Array, Array, Array]:
    """The boxes of a random resized crop, in integer pixels.

    The area and the logarithm of the aspect ratio are uniform. The first of ten candidates that
    fits is used, at a uniform position; if none fits, the largest centered box of an allowed ratio.

    NumPy draws give NumPy boxes, so that crops on the host follow the same rule. There a side of a
    box may round to the other of two adjacent pixels.

    Args:
      draws: [b, 22], uniform in [0, 1): ten areas, ten aspect ratios, and the position.
      height, width: sides of the images in pixels.
      scale: least and greatest area, as a fraction of the area of the image.
      ratio: least and greatest aspect ratio, width over height.

    Returns:
      top, left, height, width in pixels, int32, [b] each.

    References:
      torchvision's ``RandomResizedCrop``.
    """
    xp = draws.__array_namespace__()
    area, aspect, position = draws[:, :10], draws[:, 10:20], draws[:, 20:]
    area = height * width * between(*scale, area)
    aspect = xp.exp(between(math.log(ratio[0]), math.log(ratio[1]), aspect))
    w, h = xp.round(xp.sqrt(area * aspect)), xp.round(xp.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, some = xp.argmax(fits, axis=1, keepdims=True), xp.any(fits, axis=1)

    largest_h = min(height, max(1, round(width / ratio[0])))
    largest_w = min(width, max(1, round(height * ratio[1])))
    h = xp.where(some, xp.take_along_axis(h, first, axis=1)[:, 0], largest_h)
    w = xp.where(some, xp.take_along_axis(w, first, axis=1)[:, 0], largest_w)

    def start(side: int, length: Array, draw: Array) -> Array:
        free = side - length
        return xp.floor(xp.where(some, draw * (free + 1), free / 2))

    top, left = start(height, h, position[:, 0]), start(width, w, position[:, 1])
    return top.astype(xp.int32), left.astype(xp.int32), h.astype(xp.int32), w.astype(xp.int32)


def between(low: float, high: float, draw: Array) -> Array:
    """Maps a uniform draw in [0, 1) to [low, high)."""
    return low + (high - low) * draw
