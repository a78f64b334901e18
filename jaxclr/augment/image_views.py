"""Random views of uint8 images.

A view draws its parameters from one key per image, and then applies every operation to the batch.
Operations with a probability or strength of 0 are not compiled.
"""

import dataclasses
import itertools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Interval
from jax import Array
from jax.typing import DTypeLike

from jaxclr.augment.blur import gaussian_blur
from jaxclr.augment.boxes import CROP_DRAWS, between, crop_box
from jaxclr.augment.color import color_jitter, grayscale, solarize
from jaxclr.augment.corrupt import add_noise, erase
from jaxclr.augment.geometry import affine, crop_resize, flip, to_float, warp
from jaxclr.errors import UserError
from jaxclr.fields import check_fields

_Probability = Annotated[float, Interval(ge=0, le=1)]
_Positive = Annotated[float, Gt(0)]
_Part = Annotated[float, Interval(gt=0, le=1)]


@dataclasses.dataclass(frozen=True)
class PhotoView:
    """Crop, color jitter, grayscale, blur, solarize and flip, in this order.

    Called with keys [b] (typed PRNG keys, one per image) and uint8 images [b, H, W, C], it returns
    floats in [0, 1], [b, size, size, C]: float32, or float64 if x64 is on. Saturation, hue and
    grayscale apply only if C is 3.

    Attributes:
      size: Side of the view in pixels.
      crop_scale: Least and greatest area of the crop, as a fraction of the area of the image.
      crop_ratio: Least and greatest width over height of the crop; its logarithm is uniform.
      flip: Probability of a horizontal flip.
      jitter: Probability of the color jitter, whose four operations are in random order.
      brightness: Strength; factors are uniform within 1 ± strength, but not below 0.
      contrast: Strength, likewise.
      saturation: Strength, likewise.
      hue: Strength; shifts are uniform within ± this many turns, at most 0.5.
      grayscale: Probability of conversion to grayscale.
      blur: Probability of a Gaussian blur.
      blur_sigma: Least and greatest width of the blur, in pixels of the view.
      solarize: Probability of inverting pixels brighter than 0.5.

    Raises:
      UserError: when constructed, if a value is out of range.
      TypeError, ValueError: when called, if keys or images are not as described.

    References:
      SimCLR (arXiv:2002.05709), MoCo v2 (arXiv:2003.04297), BYOL (arXiv:2006.07733).
    """

    size: Annotated[int, Ge(1)] = 32
    crop_scale: tuple[_Part, _Part] = (0.2, 1.0)
    crop_ratio: tuple[_Positive, _Positive] = (3 / 4, 4 / 3)
    flip: _Probability = 0.5
    jitter: _Probability = 0.8
    brightness: Annotated[float, Ge(0)] = 0.4
    contrast: Annotated[float, Ge(0)] = 0.4
    saturation: Annotated[float, Ge(0)] = 0.4
    hue: Annotated[float, Interval(ge=0, le=0.5)] = 0.1
    grayscale: _Probability = 0.2
    blur: _Probability = 0.0
    blur_sigma: tuple[_Positive, _Positive] = (0.1, 2.0)
    solarize: _Probability = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "PhotoView")
        _check_order(self, "crop_scale", "crop_ratio", "blur_sigma")

    def __call__(self, keys: Array, images: Array) -> Array:
        x = to_float(images)
        _, height, width, _ = x.shape
        crop, order, strengths, sigma, coins = self._draws(keys, x)
        box = crop_box(crop, height, width, self.crop_scale, self.crop_ratio)
        return self._finish(crop_resize(x, *box, self.size), order, strengths, sigma, coins)

    def after_crop(self, keys: Array, crops: Array) -> Array:
        """The view of images that were cropped on the host.

        The draws are those of a call with the same keys. If the host's box is computed from the
        first `CROP_DRAWS` draws of an image's key, as in `jaxclr.data.crops`, the result equals
        that of a call, except for the resampling of the crop.

        Args:
          keys: [b], typed PRNG keys, one per image.
          crops: uint8 [b, size, size, C].

        Returns:
          Floats in [0, 1], [b, size, size, C].

        Raises:
          TypeError, ValueError: keys or crops are not as described.
        """
        x = to_float(crops)
        if x.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"Crops for a view of {self.size} pixels must have that size, got {crops.shape}."
            )
        _, order, strengths, sigma, coins = self._draws(keys, x)
        return self._finish(x, order, strengths, sigma, coins)

    def _draws(self, keys: Array, images: Array) -> list[Array]:
        """Draws for the crop, the jitter's order and strengths, the blur, and the probabilities."""
        _check_keys(keys, images)
        return _uniform(keys, (CROP_DRAWS, 4, 4, 1, 5), images.dtype)

    def _finish(
        self, x: Array, order: Array, strengths: Array, sigma: Array, coins: Array
    ) -> Array:
        has_color = x.shape[-1] == 3
        flips, jitters, grays, blurs, solarizes = jnp.unstack(coins, axis=1)
        factors = self._factors(strengths, jitters < self.jitter, has_color)
        if any(factor is not None for factor in factors):
            x = color_jitter(x, *factors, order=jnp.argsort(order, axis=1))
        if self.grayscale and has_color:
            x = grayscale(x, grays < self.grayscale)
        if self.blur:
            sigma = between(*self.blur_sigma, sigma[:, 0])
            x = gaussian_blur(x, jnp.where(blurs < self.blur, sigma, 0))
        if self.solarize:
            x = solarize(x, solarizes < self.solarize)
        if self.flip:
            x = flip(x, flips < self.flip)
        return jnp.clip(x, 0, 1)  # resampling and blur exceed it by rounding errors

    def _factors(self, draws: Array, apply: Array, has_color: bool) -> list[Array | None]:
        """Brightness, contrast, saturation, hue [b] from draws [b, 4]; None if never applied."""
        names = ("brightness", "contrast", "saturation", "hue")
        factors: list[Array | None] = []
        for name, draw in zip(names, jnp.unstack(draws, axis=1), strict=True):
            strength = getattr(self, name) if has_color or name in names[:2] else 0
            low, identity = (-strength, 0) if name == "hue" else (max(0, 1 - strength), 1)
            factor = jnp.where(apply, between(low, identity + strength, draw), identity)
            factors.append(factor if self.jitter and strength else None)
        return factors


@dataclasses.dataclass(frozen=True)
class DigitView:
    """An affine warp, an erased rectangle and noise, for small images such as digits.

    Called with keys [b] (typed PRNG keys, one per image) and uint8 images [b, H, W, C], it returns
    floats in [0, 1], [b, H, W, C]: float32, or float64 if x64 is on. Images are not flipped.

    Attributes:
      rotation: Angles are uniform within ± this many degrees.
      scale: Least and greatest magnification.
      shift: Shifts along either axis are uniform within ± this fraction of the side.
      erase: Probability of setting a rectangle inside the image to black.
      erase_size: Least and greatest side of that rectangle as a fraction of the side of the image;
        height and width are drawn separately and rounded to integers.
      noise: Standard deviation of Gaussian noise, where white is 1.

    Raises:
      UserError: when constructed, if a value is out of range.
      TypeError, ValueError: when called, if keys or images are not as described.
    """

    rotation: Annotated[float, Interval(ge=0, le=180)] = 15.0
    scale: tuple[_Positive, _Positive] = (0.8, 1.2)
    shift: Annotated[float, Interval(ge=0, le=1)] = 0.1
    erase: _Probability = 0.5
    erase_size: tuple[_Part, _Part] = (0.15, 0.4)
    noise: Annotated[float, Ge(0)] = 0.1

    def __post_init__(self) -> None:
        check_fields(self, "DigitView")
        _check_order(self, "scale", "erase_size")

    def __call__(self, keys: Array, images: Array) -> Array:
        x = to_float(images)
        _check_keys(keys, x)
        height, width = x.shape[1:3]
        draw_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        pose, rectangle, coin = _uniform(draw_keys, (4, 4, 1), x.dtype)
        if self.rotation or self.shift or self.scale != (1, 1):
            turn, zoom, right, down = jnp.unstack(pose, axis=1)
            shift = jnp.stack(
                [
                    width * between(-self.shift, self.shift, right),
                    height * between(-self.shift, self.shift, down),
                ],
                axis=1,
            )
            angle = between(-self.rotation, self.rotation, turn)
            x = warp(x, affine(angle, between(*self.scale, zoom), shift, height, width))
        if self.erase:
            x = erase(x, *self._rectangle(rectangle, coin[:, 0] < self.erase, height, width))
        if self.noise:
            x = add_noise(noise_keys, x, self.noise)
        return jnp.clip(x, 0, 1)

    def _rectangle(
        self, draws: Array, apply: Array, height: int, width: int
    ) -> tuple[Array, Array, Array, Array]:
        """Top, left, height, width in pixels [b] from draws [b, 4]; height 0 if not applied."""
        tall, wide, top, left = jnp.unstack(draws, axis=1)
        tall = jnp.where(apply, jnp.round(height * between(*self.erase_size, tall)), 0)
        wide = jnp.round(width * between(*self.erase_size, wide))
        top = jnp.floor(top * (height - tall + 1))
        left = jnp.floor(left * (width - wide + 1))
        return top, left, tall, wide


def takes_color(view: Any) -> bool:
    """Whether a view makes changes that only images of three channels have."""
    return isinstance(view, PhotoView) and bool(
        (view.jitter and (view.saturation or view.hue)) or view.grayscale
    )


def _uniform(keys: Array, parts: tuple[int, ...], dtype: DTypeLike) -> list[Array]:
    """Uniform draws in [0, 1), [b, n] for each n in parts; a single call compiles faster."""
    draw = jax.vmap(lambda key: jax.random.uniform(key, (sum(parts),), dtype))
    return jnp.split(draw(keys), list(itertools.accumulate(parts[:-1])), axis=1)


def _check_keys(keys: Array, images: Array) -> None:
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(f"Views need typed keys (jax.random.key), got an array of {keys.dtype}.")
    if keys.shape != images.shape[:1]:
        raise ValueError(
            f"Views need one key per image, got keys {keys.shape} for {images.shape[0]} images."
        )


def _check_order(view: PhotoView | DigitView, *names: str) -> None:
    for name in names:
        least, greatest = getattr(view, name)
        if least > greatest:
            raise UserError(
                f"{type(view).__name__}.{name} must be the least value, then the greatest, "
                f"got {(least, greatest)}."
            )
