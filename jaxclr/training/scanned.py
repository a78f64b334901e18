"""Programs that the host starts once for many steps or many images, on splits that live on the devices."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import epoch_order
from jaxclr.evaluation import knn_predict
from jaxclr.methods import Network
from jaxclr.training.batches import Batch
from jaxclr.training.session import AXIS, Session
from jaxclr.training.state import Recipe, State
from jaxclr.training.step import train_step
from jaxclr.training.views import plain_view

Array = jax.Array
Steps = Callable[[State, Batch, Array], tuple[State, dict[str, Array]]]


def compile_steps(session: Session) -> Steps:
    """Several training steps in one program; they are those of the training loop, whose host starts each.

    What a method refreshes before an epoch is left to the caller, as it is there (`refresh.compile_refresh`).

    Returns:
      A function of a replicated state, whose buffers it consumes, of a split on every device (`batches.resident`) and of
      places in it, int32 [steps, batch_size] (`epoch_places`, or rows of it). It returns the state, and the metrics of
      each step, [steps].
    """
    step = functools.partial(train_step, recipe=session.recipe, axis_name=AXIS)

    def one_device(state: State, whole: Batch, places: Array) -> tuple[State, dict[str, Array]]:
        take = lambda rows: jax.tree.map(lambda leaf: leaf[rows], whole)
        return jax.lax.scan(lambda state, rows: step(state, take(rows)), state, places)

    mapped = jax.shard_map(
        one_device,
        mesh=session.mesh,
        in_specs=(P(), P(), P(None, AXIS)),
        out_specs=P(),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0)


def epoch_places(session: Session, epoch: int) -> Array:
    """Places in the training split of the images of an epoch's steps, int32 [steps, batch_size], over the devices."""
    recipe = session.recipe
    order = epoch_order(recipe.seed, epoch, recipe.images)
    kept = order[: recipe.steps_per_epoch * recipe.batch_size].reshape(-1, recipe.batch_size)
    return jax.device_put(kept, NamedSharding(session.mesh, P(None, AXIS)))


def compile_knn(
    session: Session, *, k: int, temperature: float, rows: int = 500, tile: int = 1024
) -> Callable[[State, Array, Array], Array]:
    """kNN accuracy on the test split in one program, which the host need not wait for.

    Args:
      session: whose data are in memory and have labels.
      k: number of neighbours, at most the number of training images.
      temperature: of their weights.
      rows: most images that a device embeds at once.
      tile: rows and columns that are compared at a time.

    Returns:
      A function of a state and of the images of both splits, uint8 [N, H, W, C] on every device; float32 [].
    """
    train, test = session.dataset.train, session.dataset.test
    settings = {"classes": len(session.dataset.classes), "temperature": temperature, "tile": tile}
    represent = functools.partial(representations, session=session, rows=rows)

    @jax.jit
    def accuracy(state: State, train_images: Array, test_images: Array) -> Array:
        train_x, test_x = represent(state, train_images), represent(state, test_images)
        predicted = knn_predict(train_x, train.labels, test_x, k=min(k, train.size), **settings)
        return jnp.mean(predicted == test.labels)

    return accuracy


def representations(state: State, images: Array, *, session: Session, rows: int) -> Array:
    """Representations of resident images without augmentation, norms by their running statistics; to be jitted.

    Args:
      state: whose parameters.
      images: uint8 [N, H, W, C], on every device.
      session: whose network and preprocessing.
      rows: most images that a device embeds at once.

    Returns:
      float32 [N, F], on every device.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    function = functools.partial(represent_images, recipe=session.recipe)
    found = map_images(function, variables, images, mesh=session.mesh, rows=rows)
    return jax.lax.with_sharding_constraint(found, NamedSharding(session.mesh, P()))


def represent_images(variables: Mapping[str, Any], images: Array, recipe: Recipe) -> Array:
    """Representations, float32 [b, F], of uint8 images [b, H, W, C] as evaluation sees them."""
    pixels = plain_view(images, recipe)
    return recipe.network.apply(variables, pixels, method=Network.represent).astype(jnp.float32)


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
    chunks = -(-len(images) // (mesh.size * rows))
    rows = -(-len(images) // (mesh.size * chunks))

    def mine(tree: Any, images: Array) -> Array:
        first = jax.lax.axis_index(AXIS) * chunks * rows
        places = (first + jnp.arange(chunks * rows)) % len(images)
        one_chunk = lambda places: function(tree, images[places])
        return jax.lax.map(one_chunk, places.reshape(chunks, rows))

    mapped = jax.shard_map(mine, mesh=mesh, in_specs=P(), out_specs=P(AXIS), check_vma=False)
    found = mapped(tree, images)
    return found.reshape(-1, *found.shape[2:])[: len(images)]
