"""What the network sees of images: random views while it trains, the plain image otherwise."""

import jax
import jax.numpy as jnp

from jaxclr.augment import Augmentation, PhotoView, resize
from jaxclr.steps.state import Recipe, step_key

Array = jax.Array


def take_views(
    step: Array, images: Array | tuple[Array, ...], places: Array, *, recipe: Recipe
) -> tuple[Array, ...]:
    """Normalised random views of some images of a batch.

    Image i of the global batch draws from fold_in(fold_in(key(seed), step), i), whatever the devices and micro-batches.

    Args:
      step: int32 [].
      images: uint8 [b, H, W, C]; or a crop for each view, uint8 [b, size, size, C], taken by the host from the same keys.
      places: of the images in the global batch, int32 [b].
      recipe: the recipe of the run.

    Returns:
      A [b, h, w, C] of floats for each view; views may differ in size.
    """
    key = step_key(recipe.seed, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
    cropped = isinstance(images, tuple)
    draw = recipe.augmentation.after_crop if cropped else recipe.augmentation
    return tuple(normalize(view, recipe.mean, recipe.std) for view in draw(keys, images))


def plain_view(images: Array, recipe: Recipe) -> Array:
    """Normalised images without augmentation, as large as the first view.

    Args:
      images: uint8 [b, H, W, C].
      recipe: the recipe of the run.

    Returns:
      Floats [b, h, w, C].
    """
    view = recipe.augmentation.views[0]
    size = view.size if isinstance(view, PhotoView) else images.shape[1]
    return normalize(resize(images, size), recipe.mean, recipe.std)


def plain_size(image_size: int | None, augmentation: Augmentation) -> int | None:
    """Side in pixels to which streamed images are brought where they are not augmented; None if nothing tells it."""
    return image_size or getattr(augmentation.views[0], "size", None)


def normalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Images [b, h, w, C] in [0, 1], less the mean and divided by the standard deviation of their channels."""
    mean, std = (jnp.asarray(value, images.dtype)[None, None, None, :] for value in (mean, std))
    return (images - mean) / std
