"""The inputs of the network: random views in training, plain examples in evaluation."""

from collections.abc import Sequence
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
    """Random views of the examples of a batch; views of images are normalized.

    Example i of the global batch uses the key fold_in(fold_in(key(seed), step), i) for any number
    of devices and micro-batches.

    Args:
      step: int32 [].
      examples: a tree of arrays [b, ...], such as images uint8 [b, H, W, C]; or a tuple with the
        crops of each view, uint8 [b, size, size, C], which the host took with the same keys.
      indices: indices of the examples in the global batch, int32 [b].
      recipe: the recipe of the run.

    Returns:
      For each view a tree of arrays [b, ...]. Views of images are floats [b, h, w, C], whose size
      may differ between views.
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
    """The input of a view's encoder in evaluation: examples without augmentation.

    The first of these that applies:

    1. the augmentation's `plain` of the examples;
    2. images, resized to the size of the view and normalized;
    3. the examples, if they have the structure and types of the view;
    4. the only array of the examples that has the type of the view;
    5. the view, drawn with a fixed key.

    Args:
      examples: a tree of arrays [b, ...], such as images uint8 [b, H, W, C].
      recipe: the recipe of the run.
      view: index of the view, and of its encoder if each view has its own.

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
    if recipe.mean is not None and recipe.std is not None and _is_normalized(like, recipe):
        height, width = like.shape[1:3]
        images = trees.images_of(examples)
        assert images is not None  # only data of images have a mean
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
    """Side in pixels of streamed images without augmentation; None if it is not specified."""
    return image_size or getattr(augmentation.views[0], "size", None)


def normalize_view(view: Tree, recipe: Recipe) -> Tree:
    """Normalizes a view of images, floats [b, h, w, C] in [0, 1]; returns other views unchanged."""
    if recipe.mean is None or recipe.std is None or not _is_normalized(view, recipe):
        return view
    return normalize(view, recipe.mean, recipe.std)


def normalize(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Images [b, h, w, C] in [0, 1], normalized by mean and standard deviation of each channel."""
    center, scale = (jnp.asarray(value, images.dtype)[None, None, None, :] for value in (mean, std))
    return (images - center) / scale


def _is_normalized(view: Tree, recipe: Recipe) -> bool:
    return (
        recipe.mean is not None
        and hasattr(view, "ndim")
        and view.ndim == 4
        and view.shape[-1] == len(recipe.mean)
        and jnp.issubdtype(view.dtype, jnp.floating)
    )


def _kind(tree: Tree) -> Any:
    """Structure of a tree, and rank and kind of each leaf; all floats are of one kind."""
    kind = lambda leaf: (
        leaf.ndim,
        "f" if jnp.issubdtype(leaf.dtype, jnp.floating) else np.dtype(leaf.dtype).kind,
    )
    return jax.tree.structure(tree), tuple(map(kind, jax.tree.leaves(tree)))
