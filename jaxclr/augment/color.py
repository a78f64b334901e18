"""Color operations of Pillow and torchvision on batches [b, H, W, C] of floats in [0, 1].

Every operation takes one parameter per image. Internally images are tuples of C planes [b, H, W],
so that loops are long and contiguous.
"""

import jax
import jax.numpy as jnp
from jax import Array

Planes = tuple[Array, ...]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def adjust_brightness(images: Array, factor: Array) -> Array:
    """clip(f x). Args: images [b, H, W, C]; factor [b], at least 0.

    >>> images = jnp.full((1, 1, 1, 3), 0.5)
    >>> jaxclr.augment.adjust_brightness(images, jnp.array([0.5]))[0, 0, 0].tolist()
    [0.25, 0.25, 0.25]
    """
    return _stack(_blend(_planes(images), 0, factor[:, None, None]))


def adjust_contrast(images: Array, factor: Array) -> Array:
    """clip(f x + (1 - f) m), where m is the mean of the gray image.

    Args:
      images: [b, H, W, C]; gray is the mean of the channels unless C is 3.
      factor: [b], at least 0.
    """
    planes = _planes(images)
    mean = _gray(planes).mean(axis=(1, 2), keepdims=True)
    return _stack(_blend(planes, mean, factor[:, None, None]))


def adjust_saturation(images: Array, factor: Array) -> Array:
    """clip(f x + (1 - f) gray(x)). Args: images [b, H, W, 3]; factor [b], at least 0."""
    planes = _rgb(images)
    return _stack(_blend(planes, _gray(planes), factor[:, None, None]))


def adjust_hue(images: Array, shift: Array) -> Array:
    r"""Rotates the hue; saturation and value (HSV) do not change.

    With M and m the largest and smallest channel of a pixel and h its hue in [0, 6), the result is,
    for n = 5, 3, 1 in red, green and blue,

    .. math:: M - (M - m)\,\min(1, \max(0, \min(k, 4 - k))),
       \quad k = (n + h + 6\,\text{shift}) \bmod 6

    Args:
      images: [b, H, W, 3].
      shift: [b], in turns; -0.5 and 0.5 give the complementary color.
    """
    return _stack(_turn_hue(_rgb(images), shift[:, None, None]))


def color_jitter(
    images: Array,
    brightness: Array | None,
    contrast: Array | None,
    saturation: Array | None,
    hue: Array | None,
    order: Array,
) -> Array:
    """Brightness, contrast, saturation and hue, in a separate order for each image.

    Args:
      images: [b, H, W, C]; C must be 3 for saturation and hue.
      brightness, contrast, saturation: factors [b], where 1 is the identity; None: not applied.
      hue: shifts [b] in turns, where 0 is the identity; None: not applied.
      order: [b, 4], integer, a permutation per image: the first operation, the second, and so on,
        numbered from 0 in the order of the arguments.

    Returns:
      [b, H, W, C].

    References:
      torchvision's ``ColorJitter``.
    """
    planes = _planes(images) if saturation is None and hue is None else _rgb(images)
    zeros = jnp.zeros(len(images), images.dtype)
    strengths = [
        zeros + (which != HUE) if strength is None else strength
        for which, strength in enumerate((brightness, contrast, saturation, hue))
    ]
    strengths = jnp.take_along_axis(jnp.stack(strengths, axis=1), order, axis=1)

    def apply(planes: Planes, operation: tuple[Array, Array]) -> tuple[Planes, None]:
        which, strength = (value[:, None, None] for value in operation)
        gray = _gray(planes)
        base = jnp.where(which == SATURATION, gray, 0)
        if contrast is not None:
            base = jnp.where(which == CONTRAST, gray.mean(axis=(1, 2), keepdims=True), base)
        planes = _blend(planes, base, jnp.where(which == HUE, 1, strength))
        if hue is not None:
            planes = _turn_hue(planes, jnp.where(which == HUE, strength, 0))
        return planes, None

    # A scan: XLA would fuse four unrolled operations and recompute each in all later ones.
    planes, _ = jax.lax.scan(apply, planes, (order.T, strengths.T))
    return _stack(planes)


def grayscale(images: Array, apply: Array) -> Array:
    """Sets all channels to 0.299 R + 0.587 G + 0.114 B.

    Args:
      images: [b, H, W, 3].
      apply: [b], bool; other images do not change.
    """
    gray = _gray(_rgb(images))[..., None]
    return jnp.where(apply[:, None, None, None], gray, images)


def solarize(images: Array, apply: Array, threshold: float = 0.5) -> Array:
    """Inverts values at or above the threshold.

    >>> float(jaxclr.augment.solarize(jnp.full((1, 1, 1, 1), 0.75), jnp.array([True]))[0, 0, 0, 0])
    0.25

    Args:
      images: [b, H, W, C].
      apply: [b], bool; other images do not change.
      threshold: 0.5, between the levels 127 and 128, is Pillow's default.
    """
    inverted = apply[:, None, None, None] & (images >= threshold)
    return jnp.where(inverted, 1 - images, images)


def _turn_hue(planes: Planes, shift: Array) -> Planes:
    red, green, blue = planes
    largest = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = largest - jnp.minimum(jnp.minimum(red, green), blue)
    is_red, is_green = largest == red, largest == green
    lead = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
    sector = jnp.where(is_red, 0, jnp.where(is_green, 2, 4))
    hue = lead / jnp.where(chroma > 0, chroma, 1) + sector + 6 * shift

    def channel(plane: Array, n: int) -> Array:
        k = hue + n
        k = k - 6 * jnp.floor(k / 6)
        turned = largest - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)
        return jnp.where(shift == 0, plane, turned)  # no rounding error without a shift

    return channel(red, 5), channel(green, 3), channel(blue, 1)


def _blend(planes: Planes, base: Array | float, factor: Array) -> Planes:
    """clip(f x + (1 - f) base); base and factor broadcast to planes [b, H, W]."""
    rest = (1 - factor) * base
    return tuple(jnp.clip(factor * plane + rest, 0, 1) for plane in planes)


def _gray(planes: Planes) -> Array:
    """Luma of three planes; the mean of any other number."""
    weights = _LUMA if len(planes) == 3 else (1 / len(planes),) * len(planes)
    first, *rest = (weight * plane for weight, plane in zip(weights, planes, strict=True))
    return sum(rest, start=first)


def _planes(images: Array) -> Planes:
    return tuple(jnp.unstack(images, axis=-1))


def _rgb(images: Array) -> Planes:
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Color operations need images [b, H, W, 3], got {images.shape}.")
    return _planes(images)


def _stack(planes: Planes) -> Array:
    return jnp.stack(planes, axis=-1)
