"""What a method learns from all training images at once, at the start of an epoch."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import Stream
from jaxclr.methods import MomentumEncoder
from jaxclr.processes.runtime import replicate
from jaxclr.steps.examples import apply_in_batches, batches
from jaxclr.steps.recipe import REFRESH, Recipe
from jaxclr.steps.scanned import map_images
from jaxclr.steps.state import State, settled
from jaxclr.steps.views import plain_view

Array = jax.Array

ROWS = 256  # most images that a device embeds at once


def refresh_is_due(recipe: Recipe, step: int) -> bool:
    """Whether the method refreshes its state after so many steps, before the next one."""
    epoch, offset = divmod(step, recipe.steps_per_epoch)
    first = recipe.method.refresh_from
    return first is not None and offset == 0 and epoch >= first


def compile_refresh(
    recipe: Recipe, mesh: Mesh, plain_size: int | None
) -> Callable[[State, Array | Stream], State]:
    """The state with the method's own refreshed, as a function of it and of all training images, uint8 [N, H, W, C] or
    streamed.

    The key is folded from seed and epoch, so that a run that stops and resumes refreshes as one that went on. After a
    bad step nothing changes.

    Args:
      recipe: the recipe of the run.
      mesh: the devices, of one axis.
      plain_size: side in pixels at which streamed images are embedded; None where images are in memory.
    """
    everywhere = NamedSharding(mesh, P())

    @jax.jit
    def refreshed(state: State, images: Array) -> State:
        return from_embeddings(
            state, jax.lax.with_sharding_constraint(embed(state, images), everywhere)
        )

    @jax.jit
    def from_embeddings(state: State, embeddings: Array) -> State:
        epoch = state.step // recipe.steps_per_epoch
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), REFRESH), epoch)
        old = state.method_state
        new = settled(recipe.method.refresh(old, embeddings, key), old)
        kept = jax.tree.map(lambda a, b: jnp.where(state.bad_step < 0, a, b), new, old)
        return jax.lax.with_sharding_constraint(kept, everywhere)

    def embed(state: State, images: Array) -> Array:
        function = functools.partial(plain_embeddings, recipe=recipe)
        return map_images(function, state, images, mesh=mesh, rows=ROWS)

    embed_rows = jax.jit(lambda state, images: plain_embeddings(state, images, recipe))

    def embed_stream(state: State, stream: Stream) -> Array:
        parts = []
        for some in batches(stream, size=plain_size, batch=ROWS, replace_damaged=True):
            of_rows = functools.partial(embed_rows, state)
            parts.append(apply_in_batches(of_rows, some.data, batch=ROWS))
        return replicate(np.concatenate(parts), mesh)

    def refresh(state: State, images: Array | Stream) -> State:
        if isinstance(images, Stream):
            return state.replace(method_state=from_embeddings(state, embed_stream(state, images)))
        return state.replace(method_state=refreshed(state, images))

    return refresh


def plain_embeddings(state: State, images: Array, recipe: Recipe) -> Array:
    """Embeddings without augmentation by the momentum encoder, or without one by the encoder; norms by running statistics.

    Args:
      state: whose parameters.
      images: uint8 [b, H, W, C].
      recipe: the recipe of the run.

    Returns:
      [b, D], float32 at least.
    """
    momentum = isinstance(recipe.method.target, MomentumEncoder)
    params, stats = (
        (state.target_params, state.target_batch_stats)
        if momentum
        else (state.params, state.batch_stats)
    )
    network = recipe.network.clone(predictor=None)
    variables = {"params": params, "batch_stats": stats}
    embedding = network.apply(variables, plain_view(images, recipe), train=False).embedding
    return embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32))
