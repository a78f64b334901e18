"""Crops, flips and affine warps of batches [b, H, W, C]."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax import Precision
from jax.typing import DTypeLike

from jaxclr import trees


def crop_resize(
    images: Array, top: Array, left: Array, height: Array, width: Array, size: int
) -> Array:
    r"""Resizes one box of each image to a square: Pillow's ``resize(box=..., resample=BILINEAR)``.

    .. math:: Y = R_y X R_x^\top, \qquad
       R_{ij} \propto \max\left(0,\, 1 - \frac{|j + 1/2 - c_i|}{\max(1, s)}\right),
       \quad c_i = \text{start} + s\,(i + 1/2), \quad s = \text{length} / \text{size}

    Rows of R sum to one. The triangle filter widens when the box shrinks, which prevents aliasing.
    As in Pillow, it is cut at the borders of the image, not of the box. Resizing is two matrix
    products per image, which are much faster than gathers on accelerators.

    Args:
      images: [b, H, W, C], float.
      top, left, height, width: the boxes in pixels, [b] each, integer or float; inside the image.
      size: side of the result in pixels.

    Returns:
      [b, size, size, C], the dtype of the images.

    Raises:
      ValueError: the images are not a batch, or the size is not positive.
    """
    check_batch(images, "crop_resize")
    matrices = jax.vmap(_resampling, in_axes=(0, 0, None, None, None))
    rows = matrices(top, height, images.shape[1], size, images.dtype)
    columns = matrices(left, width, images.shape[2], size, images.dtype)
    return separable(images, rows, columns)


def resize(images: Array, size: int) -> Array:
    """Resizes uint8 images to squares of floats in [0, 1], as for evaluation.

    The filter is that of :func:`crop_resize`. Images of this size are not resampled.

    >>> jaxclr.augment.resize(jnp.zeros((2, 32, 32, 3), jnp.uint8), 16).shape
    (2, 16, 16, 3)

    Args:
      images: [b, H, W, C], uint8.
      size: side of the result in pixels.

    Returns:
      [b, size, size, C], float32 (float64 if x64 is on).

    Raises:
      ValueError: the images are not a batch, or the size is not positive.
      TypeError: the images are not uint8.
    """
    images = to_float(images)
    b, height, width, _ = images.shape
    if (height, width) == (size, size):
        return images
    zero = jnp.zeros(b)
    resized = crop_resize(images, zero, zero, jnp.full(b, height), jnp.full(b, width), size)
    return jnp.clip(resized, 0, 1)  # weights sum to one up to rounding


def flip(images: Array, apply: Array) -> Array:
    """Flips images left to right.

    >>> images = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> jaxclr.augment.flip(images, jnp.array([True]))[0, :, :, 0].tolist()
    [[1.0, 0.0], [3.0, 2.0]]

    Args:
      images: [b, H, W, C].
      apply: [b], bool; other images do not change.
    """
    return jnp.where(apply[:, None, None, None], images[:, :, ::-1], images)


def affine(angle: Array, scale: Array, shift: Array, height: int, width: int) -> Array:
    r"""Matrices for :func:`warp` that rotate, scale and shift an image about its center.

    A point p of the result comes from the source point :math:`R(-\theta)\,(p - c - t) / s + c`.

    Args:
      angle: [b], degrees, clockwise as seen (y points down).
      scale: [b]; above 1 enlarges.
      shift: [b, 2], pixels to the right and down.
      height, width: sides of the image in pixels.

    Returns:
      [b, 2, 3], from (x, y, 1) in the result to (x, y) in the source; pixel centers are integers.
    """
    angle = jnp.deg2rad(angle)
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    linear = jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)
    center = jnp.array([[(width - 1) / 2, (height - 1) / 2]], linear.dtype)
    moved = (linear * (center + shift)[:, None, :]).sum(-1)
    return jnp.concatenate([linear, (center - moved)[:, :, None]], -1)


def warp(images: Array, matrix: Array) -> Array:
    """Bilinear affine warp with zeros outside the image. It uses gathers, for small images.

    Args:
      images: [b, H, W, C], float.
      matrix: [b, 2, 3], from (x, y, 1) in the result to (x, y) in the source, see :func:`affine`.

    Returns:
      [b, H, W, C].
    """
    check_batch(images, "warp")
    b, height, width, channels = images.shape
    y, x = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    x, y = x.reshape(1, 1, -1).astype(images.dtype), y.reshape(1, 1, -1).astype(images.dtype)
    source = matrix[:, :, 0:1] * x + matrix[:, :, 1:2] * y + matrix[:, :, 2:3]  # [b, 2, HW]
    corner = jnp.floor(source)
    fx, fy = jnp.unstack(source - corner, axis=1)
    x0, y0 = jnp.unstack(corner.astype(int), axis=1)
    flat = images.reshape(b, height * width, channels)
    result = jnp.zeros_like(flat)
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            x, y = x0 + dx, y0 + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = jnp.where(inside, y * width + x, 0)
            pixels = jnp.take_along_axis(flat, index[:, :, None], axis=1)
            result += jnp.where(inside, wy * wx, 0)[:, :, None] * pixels
    return result.reshape(images.shape)


def separable(images: Array, rows: Array, columns: Array) -> Array:
    """Y = rows X columnsᵀ for every channel of every image.

    Args:
      images: [b, H, W, C]; rows: [b, H', H]; columns: [b, W', W].

    Returns:
      [b, H', W', C].
    """
    # With channels between rows and columns, both products are batched matrix products.
    planar = jnp.swapaxes(images, 2, 3)
    planar = jnp.einsum("bih,bhcw->bicw", rows, planar, precision=Precision.HIGHEST)
    planar = jnp.einsum("bicw,bjw->bicj", planar, columns, precision=Precision.HIGHEST)
    return jnp.swapaxes(planar, 2, 3)


def to_float(images: Array) -> Array:
    """Converts uint8 images to floats in [0, 1]: float32, or float64 if x64 is on.

    A dict with images only, such as {"image": [b, H, W, C]}, is accepted too.
    """
    if isinstance(images, dict):
        found = trees.images_of(images)
        if found is None:
            raise TypeError(
                f"Views of images need uint8 [b, H, W, C], got {trees.describe(images)}."
            )
        images = found
    check_batch(images, "a view")
    if images.dtype != jnp.uint8:
        raise TypeError(f"Views of images need uint8 values in 0..255, got {images.dtype}.")
    return images.astype(jax.dtypes.canonicalize_dtype(float)) / 255


def check_batch(images: Array, who: str) -> None:
    """Raises ValueError unless the images are a batch [b, H, W, C] of non-empty images."""
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"{who} needs images [b, H, W, C], got shape {images.shape}.")


def _resampling(start: Array, length: Array, inputs: int, outputs: int, dtype: DTypeLike) -> Array:
    """The matrix R of :func:`crop_resize` along one axis, [outputs, inputs]."""
    if outputs < 1:
        raise ValueError(f"The size of a view must be at least 1 pixel, got {outputs}.")
    scale = length.astype(dtype) / outputs
    centers = start.astype(dtype) + scale * (jnp.arange(outputs, dtype=dtype) + 0.5)
    distances = jnp.arange(inputs, dtype=dtype)[None, :] + 0.5 - centers[:, None]
    weights = jnp.maximum(0, 1 - jnp.abs(distances) / jnp.maximum(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)
