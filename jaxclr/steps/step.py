"""The training step: of one device over a named axis, on a mesh, and by two mappers."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.affinity import AxisName
from jaxclr.affinity.collectives import row_ids
from jaxclr.methods import Branch, MomentumEncoder, Network, Outputs, StopGradient
from jaxclr.steps.batches import Batch
from jaxclr.steps.freezing import frozen_norms, hold_constant, keep_frozen
from jaxclr.steps.micro_batches import in_micro_batches
from jaxclr.steps.optimizers import momentum_ramp
from jaxclr.steps.recipe import Recipe, step_key
from jaxclr.steps.row_keys import row_key
from jaxclr.steps.sharding import gather, mean_gradient, shardings, split, state_specs, whole
from jaxclr.steps.state import State, cast_like, target_parts
from jaxclr.steps.views import take_views

Array = jax.Array
Tree = Any
Mapper = Literal["shard_map", "pmap"]
Step = Callable[[State, Batch], tuple[State, dict[str, Array]]]

# Folded into a step's key, as the indices of images are, which are below 2**31.
_METHOD = 0xB1EC7000
_DROPOUT = 0xB1EC7001


def train_step(
    state: State, batch: Batch, *, recipe: Recipe, axis_name: AxisName
) -> tuple[State, dict[str, Array]]:
    """One step on this device's rows of the global batch.

    Args:
      state: replicated.
      batch: b rows; device d has rows d*b ... (d+1)*b - 1 of the global batch.
      recipe: the recipe of the run.
      axis_name: mapped axis over which the batch is spread; None if this is the complete batch.

    Returns:
      The next state, and scalars of the global batch: loss, grad_norm, update_norm, learning_rate
      and bad_step.
    """
    target_params = _target_before(state, recipe)
    layout = _Layout(*map(whole, (state.params, target_params, state.params)))
    found = _find(state, target_params, batch, recipe, axis_name, layout)
    return _update(state, target_params, found, recipe)


def step_on(mesh: Mesh, recipe: Recipe) -> Step:
    """`train_step` as a function of a state and a global batch on a mesh, to be compiled by jit.

    With a replicated state, every device runs the complete step. Otherwise devices have their own
    gradients, which are summed into the parts that they keep, and the update is that of global
    arrays: norms are exact, and the compiler inserts their collectives.

    Args:
      mesh: the devices, of one axis unless the state is replicated.
      recipe: the recipe of the run; its `sharding` says how the state lies on the mesh.
    """
    axes = mesh.axis_names[0] if len(mesh.axis_names) == 1 else mesh.axis_names
    mapped = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    if recipe.sharding == "replicated":
        step = functools.partial(train_step, recipe=recipe, axis_name=axes)
        return mapped(step, in_specs=(P(), P(axes)), out_specs=P())

    def step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
        specs = state_specs(state, recipe.sharding, mesh)
        parts = split(state.params, mesh.size, axes)
        place = lambda tree, specs: jax.lax.with_sharding_constraint(tree, shardings(specs, mesh))
        own = state.replace(params=place(state.params, parts))
        target_params = place(_target_before(own, recipe), specs.target_params)
        layout = _Layout(specs.params, specs.target_params, parts)
        without = lambda state: state.replace(opt_state={}, target_params={})
        find = mapped(
            lambda state, target, batch: _find(state, target, batch, recipe, axes, layout),
            in_specs=(without(specs), specs.target_params, P(axes)),
            out_specs=_Found._make((P(), parts, P(), P())),
        )
        found = find(without(state), target_params, batch)
        state, metrics = _update(own, target_params, found, recipe)
        if recipe.sharding == "optimizer":
            collect = mapped(
                lambda params: gather(params, parts, axes), in_specs=(parts,), out_specs=P()
            )
            state = state.replace(params=collect(state.params))
        return place(state, specs), metrics

    return step


def observe(state: State, batch: Batch, *, recipe: Recipe, axis_name: AxisName) -> Outputs:
    """The inputs of the objective for this device's rows; arguments as for `train_step`."""
    target_params = _target_before(state, recipe)
    return _outputs(state.params, target_params, state, batch, recipe, axis_name)[0]


def map_step(step: Step, mesh: Mesh, how: Mapper) -> Step:
    """Runs a per-device step on all devices of a mesh; both mappers give the same results.

    Args:
      step: a function of a state and this device's rows, mapped over the axes of the mesh.
      mesh: the devices; `jax.pmap` takes a mesh of one axis.
      how: "shard_map" for `jax.jit(jax.shard_map(...))`, "pmap" for `jax.pmap`.

    Returns:
      A function of a replicated state, whose buffers are donated, and the global batch.
    """
    axes = mesh.axis_names[0] if len(mesh.axis_names) == 1 else mesh.axis_names
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
    def split(batch: Batch) -> Batch:
        return jax.tree.map(lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), batch)

    return lambda state, batch: mapped(state, split(batch))


class _Stats(NamedTuple):
    """Running statistics of the network's norms and of the momentum encoder's; {} without one."""

    online: Tree
    target: Tree


class _Layout(NamedTuple):
    """How the arguments of `_find` lie on the devices, and how its gradients shall: specs."""

    params: Tree
    target_params: Tree
    gradients: Tree


class _Found(NamedTuple):
    """What devices find in a batch; gradients lie on them as a `_Layout` says."""

    loss: Array
    gradients: Tree
    stats: _Stats
    method_state: Tree


def _find(
    state: State,
    target_params: Tree,
    batch: Batch,
    recipe: Recipe,
    axis_name: AxisName,
    layout: _Layout,
) -> _Found:
    """Loss and gradients of the global batch, and the next statistics and state of the method."""
    method = recipe.method
    targets = gather(target_params, layout.target_params, axis_name)

    def share(params: Tree) -> tuple[Array, tuple[Outputs, _Stats]]:
        params = gather(params, layout.params, axis_name)
        params = hold_constant(params, recipe.freeze)
        out, stats = _outputs(params, targets, state, batch, recipe, axis_name)
        return method.objective(out, state.method_state, axis_name), (out, stats)

    (loss, (out, stats)), gradients = jax.value_and_grad(share, has_aux=True)(state.params)
    # Collectives in the loss carry gradients between devices, so the mean over devices is exact.
    if axis_name is not None:
        loss = jax.lax.pmean(loss, axis_name)
    gradients = mean_gradient(gradients, layout.params, layout.gradients, axis_name)
    following = method.next_state(out, state.method_state, axis_name)
    return _Found(loss, gradients, stats, cast_like(following, state.method_state))


def _update(
    state: State, target_params: Tree, found: _Found, recipe: Recipe
) -> tuple[State, dict[str, Array]]:
    """The next state and the metrics of a step; the state itself if they are not finite."""
    loss, gradients, stats, method_state = found
    keep = functools.partial(
        keep_frozen,
        patterns=recipe.freeze,
        first_steps=recipe.method.frozen_first,
        step=state.step,
    )
    grad_norm = optax.tree.norm(gradients)
    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.params)
    updates = keep(optax.tree.zeros_like(updates), updates)
    update_norm = optax.tree.norm(updates)
    params = keep(state.params, optax.apply_updates(state.params, updates))
    moved = State(
        step=state.step + 1,
        params=params,
        batch_stats=keep(state.batch_stats, stats.online),
        target_params=_target_after(target_params, params, state.step, recipe),
        target_batch_stats=keep(state.target_batch_stats, stats.target),
        opt_state=keep(state.opt_state, opt_state, patterns=()),
        method_state=method_state,
        bad_step=state.bad_step,
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(update_norm)
    good = finite & (state.bad_step < 0)
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state)
    bad_step = jnp.where(finite | (state.bad_step >= 0), state.bad_step, state.step)
    metrics = {
        "loss": loss,
        "grad_norm": grad_norm,
        "update_norm": update_norm,
        "learning_rate": jnp.asarray(recipe.schedule(state.step)),
        "bad_step": bad_step,
    }
    return kept.replace(bad_step=bad_step), metrics


def _outputs(
    params: Tree,
    target_params: Tree,
    state: State,
    batch: Batch,
    recipe: Recipe,
    axis_name: AxisName,
) -> tuple[Outputs, _Stats]:
    """The inputs of the objective at parameters that may differ from the state's.

    Returns:
      The inputs, and the next running statistics.
    """
    method = recipe.method

    def embed(stats: _Stats, rows: tuple[Tree, Array]) -> tuple[_Stats, tuple[Tree, Tree]]:
        views = take_views(state.step, *rows, recipe=recipe)
        numbered = tuple(enumerate(views))
        forward = functools.partial(_forward, freeze=recipe.freeze)
        key = _dropout_key(recipe, state.step, rows[1])
        branches, online = forward(
            recipe.network,
            params,
            stats.online,
            numbered[method.online_views],
            rngs={"dropout": key, "drop_path": key, "mask": key},
        )
        if not isinstance(method.target, MomentumEncoder):
            return _Stats(online, {}), (branches, ())
        seen, target = forward(
            recipe.network.clone(predictor=None),
            target_params,
            stats.target,
            numbered[method.target_views],
            rngs={"dropout": key},  # it keeps its depth and all patches, as in DINO and iBOT
        )
        return _Stats(online, target), (branches, tuple((b.embedding, b.patches) for b in seen))

    stats, (branches, seen) = in_micro_batches(
        embed,
        _Stats(state.batch_stats, state.target_batch_stats),
        (batch.examples, row_ids(batch.indices, axis_name)),
        count=recipe.micro_batches,
    )
    embeddings = tuple(branch.embedding for branch in branches)
    match method.target:
        case MomentumEncoder():
            targets = tuple(embedding for embedding, _ in seen)
        case StopGradient():
            targets = jax.lax.stop_gradient(embeddings)
        case _:
            targets = embeddings
    given = lambda arrays: tuple(array for array in arrays if array is not None)
    out = Outputs(
        embeddings=embeddings,
        predictions=tuple(branch.prediction for branch in branches),
        targets=targets,
        representations=tuple(branch.representation for branch in branches),
        labels=batch.labels,
        indices=batch.indices,
        params=params.get("readout", {}),
        key=jax.random.fold_in(step_key(recipe.seed, state.step), _METHOD),
        step=state.step,
        epoch=state.step // recipe.steps_per_epoch,
        progress=state.step / recipe.steps_at(state.step),
        patches=given(branch.patches for branch in branches),
        target_patches=given(patches for _, patches in seen),
        masks=given(branch.mask for branch in branches),
    )
    return out, stats


def _forward(
    network: Network,
    params: Tree,
    stats: Tree,
    views: tuple[tuple[int, Tree], ...],
    *,
    rngs: dict[str, Array],
    freeze: tuple[str, ...],
) -> tuple[tuple[Branch, ...], Tree]:
    """Applies the network to one view after the other: batch statistics are per view."""
    branches = []
    for number, view in views:
        with nn.intercept_methods(frozen_norms(freeze)) if freeze else contextlib.nullcontext():
            branch, updates = network.apply(
                {"params": params, "batch_stats": stats},
                view,
                train=True,
                view=number,
                mutable=["batch_stats"],
                rngs={name: jax.random.fold_in(key, number) for name, key in rngs.items()},
            )
        stats = updates.get("batch_stats", stats)
        branches.append(branch)
    return tuple(branches), stats


def _dropout_key(recipe: Recipe, step: Array, indices: Array) -> Array:
    """The key of these rows of the global batch, for the network's own draws."""
    key = jax.random.fold_in(step_key(recipe.seed, step), _DROPOUT)
    return row_key(key, indices[0], len(indices))


def _target_before(state: State, recipe: Recipe) -> Tree:
    """Parameters of the momentum encoder for this step's targets; {} without one."""
    spec = recipe.method.target
    if isinstance(spec, MomentumEncoder) and spec.update == "before_keys":
        return _average(state.target_params, state.params, state.step, spec, recipe)
    return state.target_params


def _target_after(target: Tree, params: Tree, step: Array, recipe: Recipe) -> Tree:
    """Parameters of the momentum encoder after the update; {} without one."""
    spec = recipe.method.target
    if isinstance(spec, MomentumEncoder) and spec.update == "after_update":
        return _average(target, params, step, spec, recipe)
    return target


def _average(
    target: Tree, params: Tree, step: Array, spec: MomentumEncoder, recipe: Recipe
) -> Tree:
    """The moving average of the parameters that the momentum encoder has."""
    momentum = momentum_ramp(spec.momentum, ramp=spec.ramp, step=step, steps=recipe.steps_at(step))
    mix = lambda old, new: (momentum * old + (1 - momentum) * new).astype(old.dtype)
    mixed = jax.tree.map(mix, target, target_parts(params))
    return keep_frozen(target, mixed, recipe.freeze, {}, step)
