"""The training step, written once for one device over a named axis, and its two mappers."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.affinity import AxisName
from jaxclr.affinity.collectives import row_ids
from jaxclr.augment import Augmentation
from jaxclr.methods import Branch, Method, MomentumEncoder, Network, Outputs, StopGradient
from jaxclr.training.optimizers import momentum_ramp

Array = jax.Array
Tree = Any
Mapper = Literal["shard_map", "pmap"]

# The stream of the parameters. Images of step t draw from fold_in(key(seed), t), and no run has so many steps.
_PARAMETERS = 0xA110C000
_TARGET_PARTS = ("encoder", "projector")


@flax.struct.dataclass
class State:
    """All that changes while training, the same on every device.

    Attributes:
      step: int32 [], steps taken.
      params: parameters of the network, by part: encoder, projector and, if any, predictor.
      batch_stats: running statistics of its norms, likewise.
      target_params: parameters of the momentum encoder and its projector; {} without one.
      target_batch_stats: its running statistics.
      opt_state: state of the optimiser.
      bad_step: int32 [], the first step whose loss, gradient or update was not finite, after which nothing changes; -1 if none.
    """

    step: Array
    params: Tree
    batch_stats: Tree
    target_params: Tree
    target_batch_stats: Tree
    opt_state: Tree
    bad_step: Array


class Recipe(NamedTuple):
    """What a step needs to know and never changes."""

    method: Method
    network: Network
    augmentation: Augmentation
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    steps: int
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def init_state(recipe: Recipe, image_shape: tuple[int, ...]) -> State:
    """The state before the first step; the momentum encoder starts as a copy.

    Args:
      recipe: the recipe of the run.
      image_shape: (H, W, C) of a source image.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    view = jax.eval_shape(recipe.augmentation, keys, images)[0]
    key = jax.random.fold_in(jax.random.key(recipe.seed), _PARAMETERS)

    @jax.jit
    def init() -> State:
        variables = recipe.network.init(key, jnp.zeros(view.shape, view.dtype), train=False)
        params, stats = variables["params"], variables.get("batch_stats", {})
        momentum = isinstance(recipe.method.target, MomentumEncoder)
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=stats,
            target_params=_target_parts(params) if momentum else {},
            target_batch_stats=_target_parts(stats) if momentum else {},
            opt_state=recipe.optimizer.init(params),
            bad_step=jnp.full((), -1, jnp.int32),
        )

    return init()


def train_step(
    state: State, images: Array, *, recipe: Recipe, axis_name: AxisName
) -> tuple[State, dict[str, Array]]:
    """One step on this device's images of the global batch.

    Args:
      state: replicated.
      images: uint8 [b, H, W, C]; device d holds images d*b ... (d+1)*b - 1 of the batch.
      recipe: the recipe of the run.
      axis_name: mapped axis over which the batch is spread; None if images are all of it.

    Returns:
      The next state, and scalars of the global batch: loss, grad_norm, learning_rate, bad_step.
    """
    views = take_views(state.step, images, recipe=recipe, axis_name=axis_name)
    target, target_outputs = _targets_before(state, views, recipe)

    def share(params: Tree) -> tuple[Array, Tree]:
        branches, stats = _forward(recipe.network, params, state.batch_stats, views)
        embeddings = tuple(branch.embedding for branch in branches)
        match recipe.method.target:
            case MomentumEncoder():
                targets = target_outputs
            case StopGradient():
                targets = jax.lax.stop_gradient(embeddings)
            case _:
                targets = embeddings
        predictions = tuple(branch.prediction for branch in branches)
        outputs = Outputs(embeddings, predictions, targets)
        return recipe.method.objective(outputs, axis_name), stats

    (loss, batch_stats), gradients = jax.value_and_grad(share, has_aux=True)(state.params)
    # The gradient of a share already holds what other devices' shares owe to this one's rows: the mean is exact.
    if axis_name is not None:
        loss, gradients = jax.lax.pmean((loss, gradients), axis_name)
    grad_norm = optax.tree.norm(gradients)
    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    moved = State(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        **_target_after(target, params, state.step, recipe),
        opt_state=opt_state,
        bad_step=state.bad_step,
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(optax.tree.norm(updates))
    good = finite & (state.bad_step < 0)
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state)
    bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
    metrics = {
        "loss": loss,
        "grad_norm": grad_norm,
        "learning_rate": jnp.asarray(recipe.schedule(state.step)),
        "bad_step": bad_step,
    }
    return kept.replace(bad_step=bad_step), metrics


def take_views(
    step: Array, images: Array, *, recipe: Recipe, axis_name: AxisName
) -> tuple[Array, ...]:
    """Normalised random views of this device's images.

    Image i of the global batch draws from fold_in(fold_in(key(seed), step), i), whatever the devices.

    Args:
      step: int32 [].
      images: uint8 [b, H, W, C].
      recipe: the recipe of the run.
      axis_name: mapped axis over which the batch is spread; None if images are all of it.

    Returns:
      A [b, h, w, C] of floats for each view.
    """
    key = jax.random.fold_in(jax.random.key(recipe.seed), step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row_ids(images, axis_name))
    return tuple(
        normalize(view, recipe.mean, recipe.std) for view in recipe.augmentation(keys, images)
    )


def normalize(images: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Images [b, h, w, C] in [0, 1], less the mean and divided by the standard deviation of their channels."""
    mean, std = (jnp.asarray(value, images.dtype)[None, None, None, :] for value in (mean, std))
    return (images - mean) / std


def map_step(
    step: Callable[[State, Array], tuple[State, dict[str, Array]]], mesh: Mesh, how: Mapper
) -> Callable[[State, Array], tuple[State, dict[str, Array]]]:
    """Runs a per-device step on all devices of a mesh; both mappers take and give the same arrays.

    Args:
      step: of a state and this device's images, over the axes of the mesh.
      mesh: its devices; `jax.pmap` takes a mesh of one axis.
      how: "shard_map" for `jax.jit(jax.shard_map(...))`, "pmap" for `jax.pmap`.

    Returns:
      A function of a replicated state, whose buffers it consumes, and the images of the global batch [B, H, W, C].
    """
    axes = mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0]
    if how == "shard_map":
        mapped = jax.shard_map(
            step, mesh=mesh, in_specs=(P(), P(axes)), out_specs=P(), check_vma=False
        )
        return jax.jit(mapped, donate_argnums=0)
    if not isinstance(axes, str):
        raise ValueError(f"jax.pmap maps one axis, the mesh has {axes}; use 'shard_map'.")
    devices = list(mesh.devices.flat)
    mapped = jax.pmap(
        step, axes, in_axes=(None, 0), out_axes=None, devices=devices, donate_argnums=0
    )

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, P(axes)))
    def split(images: Array) -> Array:
        return images.reshape(len(devices), -1, *images.shape[1:])

    return lambda state, images: mapped(state, split(images))


def _forward(
    network: Network, params: Tree, stats: Tree, views: tuple[Array, ...]
) -> tuple[list[Branch], Tree]:
    """One view after the other, so that batch statistics are per view."""
    branches = []
    for view in views:
        branch, updates = network.apply(
            {"params": params, "batch_stats": stats}, view, train=True, mutable=["batch_stats"]
        )
        stats = updates.get("batch_stats", stats)
        branches.append(branch)
    return branches, stats


class _Momentum(NamedTuple):
    params: Tree
    stats: Tree


def _targets_before(
    state: State, views: tuple[Array, ...], recipe: Recipe
) -> tuple[_Momentum, tuple[Array, ...]]:
    """The momentum encoder as it embeds the targets, and these embeddings."""
    spec = recipe.method.target
    if not isinstance(spec, MomentumEncoder):
        return _Momentum({}, {}), ()
    params = state.target_params
    if spec.update == "before_keys":
        params = _average(params, state.params, state.step, recipe)
    network = recipe.network.clone(predictor=None)
    branches, stats = _forward(network, params, state.target_batch_stats, views)
    return _Momentum(params, stats), tuple(
        jax.lax.stop_gradient(branch.embedding) for branch in branches
    )


def _target_after(target: _Momentum, params: Tree, step: Array, recipe: Recipe) -> dict[str, Tree]:
    spec = recipe.method.target
    averaged = target.params
    if isinstance(spec, MomentumEncoder) and spec.update == "after_update":
        averaged = _average(averaged, params, step, recipe)
    return {"target_params": averaged, "target_batch_stats": target.stats}


def _average(target: Tree, params: Tree, step: Array, recipe: Recipe) -> Tree:
    spec = recipe.method.target
    momentum = momentum_ramp(spec.momentum, ramp=spec.ramp, step=step, steps=recipe.steps)
    mix = lambda old, new: (momentum * old + (1 - momentum) * new).astype(old.dtype)
    return jax.tree.map(mix, target, _target_parts(params))


def _target_parts(tree: Tree) -> Tree:
    return {part: tree[part] for part in _TARGET_PARTS if part in tree}

