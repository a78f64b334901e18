"""Programs that the host starts once for many steps or many images, on splits that live on the devices."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr import trees
from jaxclr.data import epoch_order
from jaxclr.methods import Network
from jaxclr.steps.batches import Batch
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.state import State
from jaxclr.steps.step import train_step
from jaxclr.steps.views import plain_view

Array = jax.Array
Steps = Callable[[State, Batch, Array], tuple[State, dict[str, Array]]]


def compile_steps(recipe: Recipe, mesh: Mesh) -> Steps:
    """Several training steps in one program; they are those of the training loop, whose host starts each.

    What a method refreshes before an epoch is left to the caller, as it is there (`refresh.compile_refresh`).

    Args:
      recipe: the recipe of the run.
      mesh: the devices, of one axis.

    Returns:
      A function of a replicated state, whose buffers it consumes, of a split on every device (`batches.resident`) and of
      indices into it, int32 [steps, batch_size] (`epoch_indices`, or rows of it). It returns the state, and the metrics of
      each step, [steps].
    """
    step = functools.partial(train_step, recipe=recipe, axis_name=AXIS)

    def one_device(state: State, whole: Batch, indices: Array) -> tuple[State, dict[str, Array]]:
        take = lambda rows: jax.tree.map(lambda leaf: leaf[rows], whole)
        return jax.lax.scan(lambda state, rows: step(state, take(rows)), state, indices)

    mapped = jax.shard_map(
        one_device,
        mesh=mesh,
        in_specs=(P(), P(), P(None, AXIS)),
        out_specs=P(),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0)


def epoch_indices(recipe: Recipe, mesh: Mesh, epoch: int) -> Array:
    """Places in the training split of the images of an epoch's steps, int32 [steps, batch_size], over the devices."""
    order = epoch_order(recipe.seed, epoch, recipe.images)
    kept = order[: recipe.steps_per_epoch * recipe.batch_size].reshape(-1, recipe.batch_size)
    return jax.device_put(kept, NamedSharding(mesh, P(None, AXIS)))


def represent_images(
    variables: Mapping[str, Any], images: Any, recipe: Recipe, view: int = 0
) -> Array:
    """Representations, float32 [b, F], of examples [b, ...] as evaluation sees them, by the encoder of a view."""
    pixels = plain_view(images, recipe, view)
    return recipe.network.apply(variables, pixels, view=view, method=Network.represent).astype(
        jnp.float32
    )


def map_images(
    function: Callable[[Any, Array], Array], tree: Any, images: Array, *, mesh: Mesh, rows: int
) -> Array:
    """A function of images for all images of a split, whose devices take a part each, some images at a time.

    Args:
      function: of the tree and some images; a row of its result depends on its own image alone.
      tree: replicated.
      images: [N, ...], on every device.
      mesh: the devices, of one axis.
      rows: most images of a device at a time.

    Returns:
      [N, ...], spread over the devices by rows if N divides, else as the compiler likes.
    """
    count = trees.size_of(images)
    chunks = -(-count // (mesh.size * rows))
    rows = -(-count // (mesh.size * chunks))

    def mine(tree: Any, images: Array) -> Array:
        first = jax.lax.axis_index(AXIS) * chunks * rows
        places = (first + jnp.arange(chunks * rows)) % count
        one_chunk = lambda places: function(tree, trees.take(images, places))
        return jax.lax.map(one_chunk, places.reshape(chunks, rows))

    mapped = jax.shard_map(mine, mesh=mesh, in_specs=P(), out_specs=P(AXIS), check_vma=False)
    found = mapped(tree, images)
    return found.reshape(-1, *found.shape[2:])[:count]
