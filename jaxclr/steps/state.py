"""The state of a run: all that changes while training."""

from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jaxclr.methods import Branch, MomentumEncoder, Sizes
from jaxclr.steps.recipe import METHOD, PARAMETERS, Recipe
from jaxclr.steps.views import view_shapes

Array = jax.Array
Tree = Any

TARGET_PARTS = ("encoder", "projector")


class State(flax.struct.PyTreeNode):
    """All that changes while training, the same on every device.

    Attributes:
      step: int32 [], steps taken.
      params: parameters by part: encoder and projector, and if there are any, predictor and readout
        (the method's own).
      batch_stats: running statistics of the network's norms, by part.
      target_params: parameters of the momentum encoder and its projector; {} without one.
      target_batch_stats: its running statistics.
      opt_state: state of the optimizer.
      method_state: the method's own state.
      bad_step: int32 [], the first step whose loss, gradient or update was not finite; -1 if there
        was none. After a bad step nothing changes.
    """

    step: Array
    params: Tree
    batch_stats: Tree
    target_params: Tree
    target_batch_stats: Tree
    opt_state: Tree
    method_state: Tree
    bad_step: Array


def init_state(recipe: Recipe, examples: Tree) -> State:
    """The state before the first step; the momentum encoder starts as a copy.

    Parameters are float32, or float64 if x64 is on.

    Args:
      recipe: the recipe of the run.
      examples: shapes and types of a batch of examples, such as `image_examples` gives.
    """
    method = recipe.method
    views = view_shapes(examples, recipe)
    base = jax.random.key(recipe.seed)

    @jax.jit
    def init() -> State:
        branch, params, stats = _init_network(recipe, views)
        sizes = Sizes(
            images=recipe.images,
            classes=recipe.classes,
            batch=recipe.batch_size,
            representation=branch.representation.shape[-1],
            embedding=branch.embedding.shape[-1],
        )
        own_key, state_key = jax.random.split(jax.random.fold_in(base, METHOD))
        own = _default_floats(method.init_params(own_key, sizes))
        params = {**params, "readout": own} if jax.tree.leaves(own) else params
        momentum = isinstance(method.target, MomentumEncoder)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=stats,
            target_params=target_parts(params) if momentum else {},
            target_batch_stats=target_parts(stats) if momentum else {},
            opt_state=recipe.optimizer.init(params),
            method_state=_default_floats(method.init_state(state_key, sizes)),
            bad_step=jnp.full((), -1, jnp.int32),
        )

    return init()


def network_state(step: int, params: Tree, batch_stats: Tree) -> State:
    """A state of the network alone, for evaluation."""
    return State(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats=batch_stats,
        target_params={},
        target_batch_stats={},
        opt_state={},
        method_state={},
        bad_step=jnp.full((), -1, jnp.int32),
    )


def untrained_network(recipe: Recipe, examples: Tree) -> State:
    """The network before the first step, as in `init_state`, for evaluation."""
    views = view_shapes(examples, recipe)
    _, params, stats = jax.jit(lambda: _init_network(recipe, views))()
    return network_state(0, params, stats)


def _init_network(recipe: Recipe, views: tuple[Tree, ...]) -> tuple[Branch, Tree, Tree]:
    """Outputs for views of zeros, and the initial parameters and statistics of the network."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), views)
    key = jax.random.fold_in(jax.random.key(recipe.seed), PARAMETERS)
    network = recipe.network
    branches, variables = network.init_with_output(key, zeros, method=network.init_views)
    params, stats = _default_floats((variables["params"], variables.get("batch_stats", {})))
    return branches[0], params, stats


def image_examples(height: int, width: int, channels: int) -> Tree:
    """The shape of a batch of one image, uint8 [1, H, W, C]."""
    return jax.ShapeDtypeStruct((1, height, width, channels), jnp.uint8)


def encoder_part(tree: Tree, view: int = 0) -> Tree:
    """The encoder's part of parameters or statistics; {} if there is none.

    With an encoder for each view, the part of this view.
    """
    part = tree.get("encoder", {})
    return part.get(f"modules_{view}", part)


def _default_floats(tree: Tree) -> Tree:
    """Converts float32 to JAX's default float, which is float64 if x64 is on."""
    wide = jax.dtypes.canonicalize_dtype(float)
    return jax.tree.map(lambda leaf: leaf.astype(wide) if leaf.dtype == jnp.float32 else leaf, tree)


def target_parts(tree: Tree) -> Tree:
    """The parts of a tree that a momentum encoder has."""
    return {part: tree[part] for part in TARGET_PARTS if part in tree}


def cast_like(new: Tree, old: Tree) -> Tree:
    """Casts the method's new state to the types of the old one; their shapes must be equal."""
    chex.assert_trees_all_equal_shapes(new, old)
    return jax.tree.map(lambda after, before: after.astype(before.dtype), new, old)
