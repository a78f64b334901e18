"""Gaussian blur with a separate width for each image."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxclr.augment.geometry import check_batch, separable

# At this width the weight of the nearest neighbor is exp(-5000), which is 0 in every float type.
_SHARP = 0.01


def gaussian_blur(images: Array, sigma: Array) -> Array:
    r"""Gaussian blur with mirrored borders (the edge pixel is not repeated).

    .. math:: Y = G_y X G_x^\top, \qquad G_{ij} \propto \sum_{p \sim j} e^{-(p - i)^2 / 2\sigma^2}

    where p runs over j and its mirror images. The kernel is not truncated. The operator is one
    matrix per image and axis, so that different widths cost nothing extra. A width of 0 is the
    identity.

    Args:
      images: [b, H, W, C], float.
      sigma: [b], pixels; at most half the side, because only the nearest mirror images are added.

    Returns:
      [b, H, W, C].

    References:
      SciPy's ``gaussian_filter(mode="mirror")``; the padding of torchvision's ``GaussianBlur``.
    """
    check_batch(images, "gaussian_blur")
    matrices = jax.vmap(_smoothing, in_axes=(0, None, None))
    sigma = jnp.maximum(sigma.astype(images.dtype), _SHARP)
    rows = matrices(sigma, images.shape[1], images.dtype)
    columns = matrices(sigma, images.shape[2], images.dtype)
    return separable(images, rows, columns)


def _smoothing(sigma: Array, side: int, dtype: DTypeLike) -> Array:
    """The matrix G of :func:`gaussian_blur` along one axis, [side, side]."""
    pixel = jnp.arange(side, dtype=dtype)
    i, j = pixel[:, None], pixel[None, :]
    inner = (j > 0) & (j < side - 1)  # the edge pixels are their own mirror images
    weights = jnp.zeros((side, side), dtype)
    for turn in (-1, 0, 1):
        center = 2 * (side - 1) * turn
        weights += jnp.exp(-(((center + j - i) / sigma) ** 2) / 2)
        weights += jnp.where(inner, jnp.exp(-(((center - j - i) / sigma) ** 2) / 2), 0)
    return weights / weights.sum(axis=1, keepdims=True)
