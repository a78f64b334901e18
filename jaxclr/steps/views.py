"""What the network sees of examples: random views while it trains, the plain example otherwise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr import trees
from jaxclr.augment import Augmentation, resize
from jaxclr.steps.recipe import Recipe, step_key

Array = jax.Array
Tree = Any


def take_views(step: Array, examples: Tree, indices: Array, *, recipe: Recipe) -> tuple[Tree, ...]:
    """Random views of some examples of a batch, those of images normalized.

    Example i of the global batch draws from fold_in(fold_in(key(seed), step), i), whatever the devices and micro-batches.

    Args:
      step: int32 [].
      examples: a tree of arrays [b, ...], such as images uint8 [b, H, W, C]; or a tuple of crops, one for each view, uint8
        [b, size, size, C], taken by the host from the same keys.
      indices: of the examples in the global batch, int32 [b].
      recipe: the recipe of the run.

    Returns:
      For each view a tree of arrays [b, ...]; of images floats [b, h, w, C], and views may differ in size.
    """
    key = step_key(recipe.seed, step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    cropped = isinstance(examples, tuple)
    draw = recipe.augmentation.after_crop if cropped else recipe.augmentation
    return tuple(normalize_view(view, recipe) for view in draw(keys, examples))


def view_shapes(examples: Tree, recipe: Recipe) -> tuple[Tree, ...]:
    """Shapes and types of the views of a batch, without computing them."""
    indices = jax.ShapeDtypeStruct((trees.size_of(examples),), jnp.int32)
    take = lambda examples, indices: take_views(jnp.int32(0), examples, indices, recipe=recipe)
    return jax.eval_shape(take, examples, indices)


def plain_view(examples: Tree, recipe: Recipe, view: int = 0) -> Tree:
    """What evaluation gives to the encoder of a view: examples without augmentation.

    It is the augmentation's own `plain`, if it has one. Otherwise images are resized to the size of the view and
    normalized; other data are taken as they are where they have the structure and types of the view, or else the one
    array of them that does; and where there is none, the view is drawn from a fixed key.

    Args:
      examples: a tree of arrays [b, ...], such as images uint8 [b, H, W, C].
      recipe: the recipe of the run.
      view: its number, which is that of the encoder where each view has its own.

    Returns:
      The encoder's input, a tree of arrays [b, ...].
    """
    plain = recipe.augmentation.plain
    if isinstance(plain, tuple):
        plain = plain[view]
    if plain is not None:
        return normalize_view(plain(examples), recipe)
    draw = recipe.augmentation.views[view]
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), trees.size_of(examples)))
    like = jax.eval_shape(draw, keys, examples)
    if recipe.mean is not None and _is_normalized(like, recipe):
        height, width = like.shape[1:3]
        images = trees.images_of(examples)
        size = height if height == width else images.shape[1]
        return normalize(resize(images, size), recipe.mean, recipe.std)
    if _kind(examples) == _kind(like):
        return examples
    same = [leaf for leaf in trees.leaves(examples) if _kind(leaf) == _kind(like)]
    if len(same) == 1:
        return same[0]
    keys = jnp.broadcast_to(jax.random.key(0), trees.size_of(examples))
    return normalize_view(draw(keys, examples), recipe)


def plain_size(image_size: int | None, augmentation: Augmentation) -> int | None:
    """Side in pixels to which streamed images are brought where they are not augmented; None if nothing tells it."""
    return image_size or getattr(augmentation.views[0], "size", None)


def normalize_view(view: Tree, recipe: Recipe) -> Tree:
    """A view of images, floats [b, h, w, C] in [0, 1], normalized by channel; any other view as it is."""
    return normalize(view, recipe.mean, recipe.std) if _is_normalized(view, recipe) else view


def normalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Images [b, h, w, C] in [0, 1], less the mean and divided by the standard deviation of their channels."""
    mean, std = (jnp.asarray(value, images.dtype)[None, None, None, :] for value in (mean, std))
    return (images - mean) / std


def _is_normalized(view: Tree, recipe: Recipe) -> bool:
    return (
        recipe.mean is not None
        and hasattr(view, "ndim")
        and view.ndim == 4
        and view.shape[-1] == len(recipe.mean)
        and jnp.issubdtype(view.dtype, jnp.floating)
    )


def _kind(tree: Tree) -> Any:
    """Structure, and for each leaf its rank and kind of number (floats of any width are alike)."""
    kind = lambda leaf: (
        leaf.ndim,
        "f" if jnp.issubdtype(leaf.dtype, jnp.floating) else np.dtype(leaf.dtype).kind,
    )
    return jax.tree.structure(tree), tuple(map(kind, jax.tree.leaves(tree)))
