"""Which part of an image is cropped, from uniform draws."""

import math

import jax.numpy as jnp
from jax import Array


def crop_box(
    draws: Array,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Array, Array, Array, Array]:
    """The boxes of a random resized crop: area uniform, log of width over height uniform.

    The first of ten candidates that fits is taken, at a uniform place; if none fits, the largest
    centred box whose ratio is allowed. Boxes are whole pixels.

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
    area, aspect, place = jnp.split(draws, [10, 20], axis=1)
    area = height * width * between(*scale, area)
    aspect = jnp.exp(between(math.log(ratio[0]), math.log(ratio[1]), aspect))
    w, h = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, some = jnp.argmax(fits, axis=1, keepdims=True), fits.any(axis=1)

    whole_h = min(height, max(1, round(width / ratio[0])))
    whole_w = min(width, max(1, round(height * ratio[1])))
    h = jnp.where(some, jnp.take_along_axis(h, first, axis=1)[:, 0], whole_h)
    w = jnp.where(some, jnp.take_along_axis(w, first, axis=1)[:, 0], whole_w)

    def start(side: int, length: Array, draw: Array) -> Array:
        free = side - length
        return jnp.floor(jnp.where(some, draw * (free + 1), free / 2))

    box = start(height, h, place[:, 0]), start(width, w, place[:, 1]), h, w
    return tuple(value.astype(jnp.int32) for value in box)


def between(low: float, high: float, draw: Array) -> Array:
    """Uniform in [low, high), from a draw that is uniform in [0, 1)."""
    return low + (high - low) * draw
