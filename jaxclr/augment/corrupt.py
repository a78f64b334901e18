"""Erased rectangles and Gaussian noise, in batches [b, H, W, C]."""

import jax
import jax.numpy as jnp
from jax import Array


def erase(images: Array, top: Array, left: Array, height: Array, width: Array) -> Array:
    """Sets one rectangle of each image to zero.

    Args:
      images: [b, H, W, C].
      top, left, height, width: the rectangles in pixels, [b] each; a side of 0 erases nothing.
    """
    rows = jnp.arange(images.shape[1])[None, :]
    columns = jnp.arange(images.shape[2])[None, :]
    rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])
    columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])
    erased = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(erased, 0, images)


def add_noise(keys: Array, images: Array, deviation: float) -> Array:
    """Adds Gaussian noise and clips to [0, 1].

    Args:
      keys: [b], typed PRNG keys; the noise of an image depends on its own key only.
      images: [b, H, W, C], float in [0, 1].
      deviation: standard deviation, where white is 1.
    """
    draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))
    return jnp.clip(images + deviation * draw(keys), 0, 1)
