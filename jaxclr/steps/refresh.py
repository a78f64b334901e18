"""Updates of a method's state from all training images, at the start of an epoch."""

import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.data import Stream
from jaxclr.methods import Branch, MomentumEncoder
from jaxclr.processes.runtime import replicate
from jaxclr.steps.examples import apply_in_batches, batches
from jaxclr.steps.recipe import REFRESH, Recipe
from jaxclr.steps.scanned import map_images
from jaxclr.steps.state import State, cast_like
from jaxclr.steps.views import plain_view

Array = jax.Array

ROWS = 256  # most images that a device embeds at a time


def refresh_is_due(recipe: Recipe, step: int) -> bool:
    """Whether the method refreshes its state before this step, counted from 0."""
    epoch, offset = divmod(step, recipe.steps_per_epoch)
    first = recipe.method.refresh_from
    return first is not None and offset == 0 and epoch >= first


def compile_refresh(
    recipe: Recipe, mesh: Mesh, plain_size: int | None
) -> Callable[[State, Array | Stream], State]:
    """Compiles the refresh of the method's state by all training images.

    The key depends on seed and epoch alone, so a resumed run refreshes as an uninterrupted one
    does. After a bad step nothing changes.

    Args:
      recipe: the recipe of the run.
      mesh: the devices, of one axis.
      plain_size: side in pixels at which streamed images are embedded; None for images in memory.

    Returns:
      A function of a state and all training images, uint8 [N, H, W, C] or a stream, that returns
      the state with its `method_state` refreshed.
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
        new = cast_like(recipe.method.refresh(old, embeddings, key), old)
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
    """Embeddings without augmentation, by the momentum encoder if there is one.

    Norms use running statistics.

    Args:
      state: its parameters and statistics are used.
      images: uint8 [b, H, W, C].
      recipe: the recipe of the run.

    Returns:
      [b, D], at least float32.
    """
    momentum = isinstance(recipe.method.target, MomentumEncoder)
    params, stats = (
        (state.target_params, state.target_batch_stats)
        if momentum
        else (state.params, state.batch_stats)
    )
    network = recipe.network.clone(predictor=None)
    variables = {"params": params, "batch_stats": stats}
    branch = cast(Branch, network.apply(variables, plain_view(images, recipe), train=False))
    embedding = branch.embedding
    return embedding.astype(jnp.promote_types(embedding.dtype, jnp.float32))
