"""Augmentations: the views of each image, and recipes by name."""

import dataclasses
import itertools
from typing import Any

import jax
from jax import Array

from jaxclr.augment.image_views import DigitView, PhotoView
from jaxclr.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The views of each example.

    Called with keys [b] (typed PRNG keys, one per example) and a batch, it returns a tuple of
    views. View v of an example is drawn from ``fold_in(key, v)``: it depends only on the key of
    that example, not on the other rows of the batch or on the devices.

    A view is any function v(keys, batch) of a tree of arrays [b, ...] that returns a tree of arrays
    [b, ...]. Views of images, uint8 [b, H, W, C], return floats in [0, 1], [b, h, w, C], which are
    then normalized by channel. Other outputs are passed to the encoder unchanged.

    Attributes:
      views: the views, at least one.
      plain: The encoder's input in evaluation: a function of a batch without augmentation, or a
        tuple of such functions, one for each view. None: images are resized to the size of the
        first view; other data are used unchanged, or the array with the view's shape and type is
        selected.

    Raises:
      UserError: `views` is empty, or a view is not callable.
    """

    views: tuple[Any, ...]
    plain: Any = None

    def __post_init__(self) -> None:
        if not self.views:
            raise UserError("An augmentation needs at least one view, got none.")
        plain = (
            self.plain
            if isinstance(self.plain, tuple)
            else (self.plain,) * (self.plain is not None)
        )
        for name, function in (
            *((f"view {v}", view) for v, view in enumerate(self.views, 1)),
            *(("plain", p) for p in plain),
        ):
            if not callable(function) or isinstance(function, type):
                kind = function.__name__ if isinstance(function, type) else type(function).__name__
                raise UserError(
                    f"augmentation: {name} must be a function of (keys, batch), got {kind}."
                )

    def __call__(self, keys: Array, batch: Any) -> tuple[Any, ...]:
        return tuple(view(_keys_of(keys, v), batch) for v, view in enumerate(self.views))

    def after_crop(self, keys: Array, crops: tuple[Array, ...]) -> tuple[Array, ...]:
        """The views of images that were cropped on the host; see `PhotoView.after_crop`.

        Args:
          keys: [b], typed PRNG keys, one per image.
          crops: uint8 [b, size, size, C] for each view.

        Returns:
          The views, as from a call.
        """
        pairs = enumerate(zip(self.views, crops, strict=True))
        return tuple(view.after_crop(_keys_of(keys, v), crop) for v, (view, crop) in pairs)


def _keys_of(keys: Array, view: int) -> Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, view)


def with_size(augmentation: Augmentation, size: int) -> Augmentation:
    """A copy whose largest photo views have another size, in pixels.

    Smaller photo views are scaled in proportion. Other views do not change.

    >>> cifar = jaxclr.augment.AUGMENTATIONS["cifar"]
    >>> jaxclr.augment.with_size(cifar, 64).views[0].size
    64
    """
    largest = max(
        (view.size for view in augmentation.views if isinstance(view, PhotoView)), default=1
    )
    resize = lambda view: dataclasses.replace(view, size=max(1, round(view.size * size / largest)))
    views = (resize(view) if isinstance(view, PhotoView) else view for view in augmentation.views)
    return dataclasses.replace(augmentation, views=tuple(views))


def with_views(augmentation: Augmentation, count: int) -> Augmentation:
    """A copy with the first `count` views, repeating them if there are fewer.

    >>> digits = jaxclr.augment.AUGMENTATIONS["digits"]
    >>> len(jaxclr.augment.with_views(digits, 4).views)
    4
    """
    views = itertools.islice(itertools.cycle(augmentation.views), count)
    return dataclasses.replace(augmentation, views=tuple(views))


_SIMCLR = PhotoView(
    size=224,
    crop_scale=(0.08, 1.0),
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    blur=0.5,
)
_MOCO = PhotoView(size=224, blur=0.5)
_BYOL = PhotoView(size=224, crop_scale=(0.08, 1.0), saturation=0.2, blur=1.0)
_CIFAR = PhotoView()


def _crops(
    view: PhotoView, small: int, small_scale: tuple[float, float], count: int
) -> Augmentation:
    """Two views, then `count` small views of a smaller area."""
    return Augmentation(
        (view,) * 2 + (dataclasses.replace(view, size=small, crop_scale=small_scale),) * count
    )


AUGMENTATIONS: dict[str, Augmentation] = {
    # SimCLR, arXiv:2002.05709, appendix A.
    "simclr": Augmentation((_SIMCLR, _SIMCLR)),
    # MoCo v2, arXiv:2003.04297.
    "moco": Augmentation((_MOCO, _MOCO)),
    # BYOL, arXiv:2006.07733, appendix B; also UniCLR's, and MoCo v3's with a ViT.
    "byol": Augmentation((_BYOL, dataclasses.replace(_BYOL, blur=0.1, solarize=0.2))),
    # SimCLR on CIFAR: half the strength, no blur.
    "cifar": Augmentation((_CIFAR, _CIFAR)),
    # SwAV, arXiv:2006.09882: two large crops and six small ones.
    "multi_crop": _crops(dataclasses.replace(_SIMCLR, crop_scale=(0.14, 1.0)), 96, (0.05, 0.14), 6),
    # The same for images of 32 pixels: small crops end where large ones begin, at an area of 0.2.
    "cifar_multi_crop": _crops(_CIFAR, 16, (0.05, 0.2), 4),
    "digits": Augmentation((DigitView(), DigitView())),
}
"""Augmentations by name, from the papers and for small images."""
