"""kNN of images that live on the devices, in one program."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import Dataset
from jaxclr.evaluation.knn import knn_predict
from jaxclr.evaluation.subject import labeled_splits
from jaxclr.steps.examples import labels_of
from jaxclr.steps.recipe import Recipe
from jaxclr.steps.scanned import map_images, represent_images
from jaxclr.steps.state import State

Array = jax.Array


def compile_knn(
    recipe: Recipe,
    mesh: Mesh,
    dataset: Dataset,
    *,
    k: int,
    temperature: float,
    rows: int = 500,
    tile: int = 1024,
) -> Callable[[State, Array, Array], Array]:
    """kNN accuracy on the test split in one program, which runs asynchronously.

    Args:
      recipe: the recipe of the run.
      mesh: the devices, of one axis.
      dataset: whose splits are in memory and have labels; examples without one are left out.
      k: number of neighbors, at most the number of training images.
      temperature: of their weights.
      rows: most images that a device embeds at once.
      tile: rows and columns that are compared at a time.

    Returns:
      A function of a state and of the images of both splits, uint8 [N, H, W, C] on every device;
      float32 [].
    """
    labels = [labels_of(split) for split in labeled_splits(dataset)]
    train_rows, test_rows = (np.flatnonzero(some >= 0) for some in labels)
    train_y, test_y = labels[0][train_rows], labels[1][test_rows]
    settings = {"classes": len(dataset.classes), "temperature": temperature, "tile": tile}
    represent = functools.partial(representations, recipe=recipe, mesh=mesh, rows=rows)

    @jax.jit
    def accuracy(state: State, train_images: Array, test_images: Array) -> Array:
        train_x, test_x = represent(state, train_images), represent(state, test_images)
        if len(train_rows) < len(train_x) or len(test_rows) < len(test_x):
            train_x, test_x = train_x[train_rows], test_x[test_rows]
        predicted = knn_predict(train_x, train_y, test_x, k=min(k, len(train_y)), **settings)
        return jnp.mean(predicted == test_y)

    return accuracy


def representations(state: State, images: Array, *, recipe: Recipe, mesh: Mesh, rows: int) -> Array:
    """Representations of resident images without augmentation; to be jitted.

    Norms use their running statistics.

    Args:
      state: whose parameters.
      images: uint8 [N, H, W, C], on every device.
      recipe: for network and preprocessing.
      mesh: the devices, of one axis.
      rows: most images that a device embeds at once.

    Returns:
      float32 [N, F], on every device.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    function = functools.partial(represent_images, recipe=recipe)
    found = map_images(function, variables, images, mesh=mesh, rows=rows)
    return jax.lax.with_sharding_constraint(found, NamedSharding(mesh, P()))
