"""Programs of many steps or many images, for splits in the memory of the devices."""

from collections.abc import Callable, Mapping
from typing import Any, cast

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
from jaxclr.steps.step import step_on
from jaxclr.steps.views import plain_view

Array = jax.Array
Steps = Callable[[State, Batch, Array], tuple[State, dict[str, Array]]]


def compile_steps(recipe: Recipe, mesh: Mesh) -> Steps:
    """Compiles several training steps into one program.

    The steps equal those of the training loop. Methods with a refresh need a call of
    `refresh.compile_refresh` before an epoch.

    Args:
      recipe: the recipe of the run.
      mesh: the devices, of one axis.

    Returns:
      A function of a state, whose buffers are donated, of a split on every device
      (`batches.resident`) and of indices into it, int32 [steps, batch_size] (`epoch_indices`, or
      rows of it). It returns the state, and the metrics of each step, [steps].
    """
    step = step_on(mesh, recipe)
    take = jax.shard_map(
        lambda split, rows: jax.tree.map(lambda leaf: leaf[rows], split),
        mesh=mesh,
        in_specs=(P(), P(AXIS)),
        out_specs=P(AXIS),
        check_vma=False,
    )

    def steps(state: State, split: Batch, indices: Array) -> tuple[State, dict[str, Array]]:
        return jax.lax.scan(lambda state, rows: step(state, take(split, rows)), state, indices)

    return jax.jit(steps, donate_argnums=0)


def epoch_indices(recipe: Recipe, mesh: Mesh, epoch: int) -> Array:
    """Indices into the training split of each step of an epoch, int32 [steps, batch_size].

    The second axis is sharded over the devices.
    """
    order = epoch_order(recipe.seed, epoch, recipe.images)
    kept = order[: recipe.steps_per_epoch * recipe.batch_size].reshape(-1, recipe.batch_size)
    return jax.device_put(kept, NamedSharding(mesh, P(None, AXIS)))


def represent_images(
    variables: Mapping[str, Any], images: Any, recipe: Recipe, view: int = 0
) -> Array:
    """Representations of examples without augmentation, float32 [b, F], by a view's encoder."""
    pixels = plain_view(images, recipe, view)
    found = recipe.network.apply(variables, pixels, view=view, method=Network.represent)
    return cast(Array, found).astype(jnp.float32)


def map_images(
    function: Callable[[Any, Array], Array], tree: Any, images: Array, *, mesh: Mesh, rows: int
) -> Array:
    """Maps a function over all images of a split, in chunks, with an equal part on each device.

    Args:
      function: of the tree and some images; each row of its result depends on its own image only.
      tree: replicated.
      images: [N, ...], on every device.
      mesh: the devices, of one axis.
      rows: most images of a device at a time.

    Returns:
      [N, ...], sharded over the devices by rows if they divide N, otherwise as the compiler
      chooses.
    """
    count = trees.size_of(images)
    chunks = -(-count // (mesh.size * rows))
    rows = -(-count // (mesh.size * chunks))

    def mine(tree: Any, images: Array) -> Array:
        first = jax.lax.axis_index(AXIS) * chunks * rows
        indices = (first + jnp.arange(chunks * rows)) % count
        one_chunk = lambda indices: function(tree, trees.take(images, indices))
        return jax.lax.map(one_chunk, indices.reshape(chunks, rows))

    mapped = jax.shard_map(mine, mesh=mesh, in_specs=P(), out_specs=P(AXIS), check_vma=False)
    found = mapped(tree, images)
    return found.reshape(-1, *found.shape[2:])[:count]
