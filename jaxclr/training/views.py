"""What the network sees of images: random views while it trains, the plain image otherwise."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import AxisName
from jaxclr.affinity.collectives import row_ids
from jaxclr.augment import PhotoView, resize
from jaxclr.training.state import Recipe, step_key

Array = jax.Array


def take_views(
    step: Array, images: Array | tuple[Array, ...], *, recipe: Recipe, axis_name: AxisName
) -> tuple[Array, ...]:
    """Normalised random views of this device's images.

    Image i of the global batch draws from fold_in(fold_in(key(seed), step), i), whatever the devices.

    Args:
      step: int32 [].
      images: uint8 [b, H, W, C]; or a crop for each view, uint8 [b, size, size, C], taken by the host from the same keys.
      recipe: the recipe of the run.
      axis_name: mapped axis over which the batch is spread; None if images are all of it.

    Returns:
      A [b, h, w, C] of floats for each view; views may differ in size.
    """
    key = step_key(recipe.seed, step)
    cropped = isinstance(images, tuple)
    rows = row_ids(images[0] if cropped else images, axis_name)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
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


def normalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Images [b, h, w, C] in [0, 1], less the mean and divided by the standard deviation of their channels."""
    mean, std = (jnp.asarray(value, images.dtype)[None, None, None, :] for value in (mean, std))
    return (images - mean) / std
