"""Augmentations: the views that are taken of every image, and the recipes known by name."""

import dataclasses
import itertools

import jax
from jax import Array

from jaxclr.augment.views import DigitView, PhotoView
from jaxclr.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Several views of each image.

    Called with keys [b] (typed PRNG keys, one per image) and uint8 images [b, H, W, C], it returns
    a tuple of views, floats in [0, 1]. View v of an image is drawn from ``fold_in(key, v)``: it
    depends on the key of that image and on nothing else, neither on its place in the batch nor on
    the devices.

    Attributes:
      views: at least one.

    Raises:
      UserError: there is no view.
    """

    views: tuple[PhotoView | DigitView, ...]

    def __post_init__(self):
        if not self.views:
            raise UserError("An augmentation needs at least one view, got none.")

    def __call__(self, keys: Array, images: Array) -> tuple[Array, ...]:
        return tuple(view(_keys_of(keys, v), images) for v, view in enumerate(self.views))

    def after_crop(self, keys: Array, crops: tuple[Array, ...]) -> tuple[Array, ...]:
        """The views of images whose crops a host has taken; see `PhotoView.after_crop`.

        Args:
          keys: [b], typed PRNG keys, one per image.
          crops: for each view uint8 [b, size, size, C], its size.

        Returns:
          As a call.
        """
        pairs = enumerate(zip(self.views, crops, strict=True))
        return tuple(view.after_crop(_keys_of(keys, v), crop) for v, (view, crop) in pairs)


def _keys_of(keys: Array, view: int) -> Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, view)


def with_size(augmentation: Augmentation, size: int) -> Augmentation:
    """The same augmentation with its largest photo views of another size (pixels), smaller ones in proportion.

    Digit views keep theirs.
    """
    largest = max((view.size for view in augmentation.views if isinstance(view, PhotoView)), default=1)
    resize = lambda view: dataclasses.replace(view, size=max(1, round(view.size * size / largest)))
    return Augmentation(
        tuple(
            resize(view) if isinstance(view, PhotoView) else view for view in augmentation.views
        )
    )


def with_views(augmentation: Augmentation, count: int) -> Augmentation:
    """The same augmentation with its first so many views, starting over after the last."""
    return Augmentation(tuple(itertools.islice(itertools.cycle(augmentation.views), count)))


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


def _crops(view: PhotoView, small: int, small_scale: tuple[float, float], count: int) -> Augmentation:
    """Two views, then so many small ones of a smaller area."""
    return Augmentation(
        (view,) * 2 + (dataclasses.replace(view, size=small, crop_scale=small_scale),) * count
    )


AUGMENTATIONS: dict[str, Augmentation] = {
    # SimCLR, arXiv:2002.05709, appendix A.
    "simclr": Augmentation((_SIMCLR, _SIMCLR)),
    # MoCo v2, arXiv:2003.04297.
    "moco": Augmentation((_MOCO, _MOCO)),
    # BYOL, arXiv:2006.07733, appendix B; also MoCo v3's and UniCLR's.
    "byol": Augmentation((_BYOL, dataclasses.replace(_BYOL, blur=0.1, solarize=0.2))),
    # SimCLR on CIFAR at half strength, without blur.
    "cifar": Augmentation((_CIFAR, _CIFAR)),
    # SwAV, arXiv:2006.09882: two large crops and six small ones.
    "multi_crop": _crops(
        dataclasses.replace(_SIMCLR, crop_scale=(0.14, 1.0)), 96, (0.05, 0.14), 6
    ),
    # The same idea for images of 32 pixels: small crops begin where large ones end.
    "cifar_multi_crop": _crops(_CIFAR, 16, (0.05, 0.2), 4),
    "digits": Augmentation((DigitView(), DigitView())),
}
