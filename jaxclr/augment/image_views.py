"""Views: random pictures of uint8 images, each drawn from the key of its image alone.

A view draws its parameters from one key per image and then runs every operation on the whole batch.
Operations whose probability or strength is 0 are not compiled at all.
"""

import dataclasses
import itertools
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Interval
from jax import Array

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
    """Crop, color jitter, grayscale, blur, solarize and flip, in this order: the usual recipe.

    Called with keys [b] (typed PRNG keys, one per image) and uint8 images [b, H, W, C], it returns
    floats in [0, 1], [b, size, size, C]: float32, or float64 if x64 is on. Saturation, hue and
    grayscale are for color: they are left out unless C is 3.

    Attributes:
      size: side of the view in pixels.
      crop_scale: least and greatest area of the crop, as a fraction of the image's.
      crop_ratio: least and greatest width of the crop over its height; its logarithm is uniform.
      flip: probability of a mirror image.
      jitter: probability of the color jitter, whose four parts come in random order.
      brightness, contrast, saturation: factors are uniform within 1 ± strength, but not below 0.
      hue: shifts are uniform within ± this many turns, at most 0.5.
      grayscale: probability of losing the colors.
      blur: probability of a Gaussian blur.
      blur_sigma: its least and greatest width, in pixels of the view.
      solarize: probability of inverting what is brighter than 0.5.

    Raises:
      UserError: on building, if a value is out of its range.
      TypeError, ValueError: on calling, if keys or images are not as described.

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
        crop, *rest = self._draws(keys, x)
        box = crop_box(crop, *x.shape[1:3], self.crop_scale, self.crop_ratio)
        return self._finish(crop_resize(x, *box, self.size), *rest)

    def after_crop(self, keys: Array, crops: Array) -> Array:
        """The rest of the view, of crops that a host has taken already.

        Draws are those of a call with the same keys: if the host's box comes from the first `CROP_DRAWS` of an image's
        key, as it does in `jaxclr.data.crops`, the result is the view but for how the crop was resampled.

        Args:
          keys: [b], typed PRNG keys, one per image.
          crops: uint8 [b, size, size, C].

        Returns:
          As a call: floats in [0, 1], [b, size, size, C].

        Raises:
          TypeError, ValueError: keys or crops are not as described.
        """
        x = to_float(crops)
        if x.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"Crops for a view of {self.size} pixels must have that size, got {crops.shape}."
            )
        return self._finish(x, *self._draws(keys, x)[1:])

    def _draws(self, keys: Array, images: Array) -> list[Array]:
        """For the crop, the order of the jitter, its strengths, the blur, and the coins."""
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
        return jnp.clip(x, 0, 1)  # resampling and blur leave it by a rounding error

    def _factors(self, draws: Array, apply: Array, has_color: bool) -> list[Array | None]:
        """Brightness, contrast, saturation, hue [b] from draws [b, 4]; None if never applied."""
        names = ("brightness", "contrast", "saturation", "hue")
        factors: list[Array | None] = []
        for name, draw in zip(names, jnp.unstack(draws, axis=1), strict=True):
            strength = getattr(self, name) if has_color or name in names[:2] else 0
            low, nothing = (-strength, 0) if name == "hue" else (max(0, 1 - strength), 1)
            factor = jnp.where(apply, between(low, nothing + strength, draw), nothing)
            factors.append(factor if self.jitter and strength else None)
        return factors


@dataclasses.dataclass(frozen=True)
class DigitView:
    """One affine warp, an erased rectangle and noise, for small images that have a right way up.

    Called with keys [b] (typed PRNG keys, one per image) and uint8 images [b, H, W, C], it returns
    floats in [0, 1], [b, H, W, C]: float32, or float64 if x64 is on. There is no mirror image.

    Attributes:
      rotation: angles are uniform within ± this many degrees.
      scale: least and greatest enlargement.
      shift: shifts along either axis are uniform within ± this fraction of the side.
      erase: probability of erasing a rectangle, anywhere inside the image, to black.
      erase_size: least and greatest side of that rectangle as a fraction of the image's; height and
        width are drawn separately and rounded to whole pixels.
      noise: standard deviation of Gaussian noise, in units of white.

    Raises:
      UserError: on building, if a value is out of its range.
      TypeError, ValueError: on calling, if keys or images are not as described.
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

    def _rectangle(self, draws: Array, apply: Array, height: int, width: int):
        """Top, left, height, width in pixels [b] from draws [b, 4]; no height if not applied."""
        tall, wide, top, left = jnp.unstack(draws, axis=1)
        tall = jnp.where(apply, jnp.round(height * between(*self.erase_size, tall)), 0)
        wide = jnp.round(width * between(*self.erase_size, wide))
        top = jnp.floor(top * (height - tall + 1))
        left = jnp.floor(left * (width - wide + 1))
        return top, left, tall, wide


def _uniform(keys: Array, parts: tuple[int, ...], dtype) -> list[Array]:
    """Draws from [0, 1), an array [b, n] for each n in parts: one call, for compilation is slow."""
    draw = jax.vmap(lambda key: jax.random.uniform(key, (sum(parts),), dtype))
    return jnp.split(draw(keys), list(itertools.accumulate(parts[:-1])), axis=1)


def _check_keys(keys: Array, images: Array) -> None:
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise TypeError(f"Views want typed keys (jax.random.key), got an array of {keys.dtype}.")
    if keys.shape != images.shape[:1]:
        raise ValueError(
            f"Views want one key per image: got keys {keys.shape} for {images.shape[0]} images."
        )


def _check_order(view: PhotoView | DigitView, *names: str) -> None:
    for name in names:
        least, greatest = getattr(view, name)
        if least > greatest:
            raise UserError(
                f"{type(view).__name__}.{name} must be the least value, then the greatest, "
                f"got {(least, greatest)}."
            )
