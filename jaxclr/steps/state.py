"""The recipe of a run, which never changes, and its state, which does."""

from typing import Any, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxclr.augment import Augmentation
from jaxclr.methods import Method, MomentumEncoder, Network, Sizes

Array = jax.Array
Tree = Any

AXIS = "batch"  # the mapped axis over which a batch is spread

# Streams of keys beside those of the steps. Step t draws from fold_in(key(seed), t), and no run has so many steps.
PARAMETERS = 0xA110C000
METHOD = 0xA110C001
REFRESH = 0xA110C002
TARGET_PARTS = ("encoder", "projector")


@flax.struct.dataclass
class State:
    """All that changes while training, the same on every device.

    Attributes:
      step: int32 [], steps taken.
      params: parameters by part: encoder, projector, if any predictor, and readout, the method's own, if any.
      batch_stats: running statistics of the network's norms, by part.
      target_params: parameters of the momentum encoder and its projector; {} without one.
      target_batch_stats: its running statistics.
      opt_state: state of the optimiser.
      method_state: what the method carries from step to step.
      bad_step: int32 [], the first step whose loss, gradient or update was not finite, after which nothing changes; -1 if none.
    """

    step: Array
    params: Tree
    batch_stats: Tree
    target_params: Tree
    target_batch_stats: Tree
    opt_state: Tree
    method_state: Tree
    bad_step: Array


class Recipe(NamedTuple):
    """What a step needs to know and never changes."""

    method: Method
    network: Network
    augmentation: Augmentation
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    images: int
    classes: int
    batch_size: int
    micro_batches: int
    steps: int
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def steps_per_epoch(self) -> int:
        """The last incomplete batch of an epoch is left out."""
        return self.images // self.batch_size


def init_state(recipe: Recipe, image_shape: tuple[int, ...]) -> State:
    """The state before the first step; the momentum encoder starts as a copy.

    Args:
      recipe: the recipe of the run.
      image_shape: (H, W, C) of a source image.
    """
    method, network = recipe.method, recipe.network
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    view = jax.eval_shape(recipe.augmentation, keys, images)[0]
    base = jax.random.key(recipe.seed)

    @jax.jit
    def init() -> State:
        pixels = jnp.zeros(view.shape, view.dtype)
        branch, variables = network.init_with_output(
            jax.random.fold_in(base, PARAMETERS), pixels, train=False
        )
        params, stats = variables["params"], variables.get("batch_stats", {})
        sizes = Sizes(
            images=recipe.images,
            classes=recipe.classes,
            batch=recipe.batch_size,
            representation=branch.representation.shape[-1],
            embedding=branch.embedding.shape[-1],
        )
        own_key, state_key = jax.random.split(jax.random.fold_in(base, METHOD))
        own = method.init_params(own_key, sizes)
        params = {**params, "readout": own} if jax.tree.leaves(own) else params
        momentum = isinstance(method.target, MomentumEncoder)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=stats,
            target_params=target_parts(params) if momentum else {},
            target_batch_stats=target_parts(stats) if momentum else {},
            opt_state=recipe.optimizer.init(params),
            method_state=method.init_state(state_key, sizes),
            bad_step=jnp.full((), -1, jnp.int32),
        )

    return init()


def step_key(seed: int, step: Array) -> Array:
    """The key of a step, from which its images' keys are folded by their places in the global batch."""
    return jax.random.fold_in(jax.random.key(seed), step)


def target_parts(tree: Tree) -> Tree:
    """The parts of a tree that a momentum encoder has."""
    return {part: tree[part] for part in TARGET_PARTS if part in tree}


def settled(new: Tree, old: Tree) -> Tree:
    """The method's new state in the types of the old one, whose structure and shapes it must have."""
    chex.assert_trees_all_equal_shapes(new, old)
    return jax.tree.map(lambda after, before: after.astype(before.dtype), new, old)
