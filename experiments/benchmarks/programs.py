"""The programs that a pod would run, lowered for chips that need not exist: losses alone, and the whole training step."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from step import outputs_of

from jaxclr import losses
from jaxclr.errors import UserError
from jaxclr.methods import MomentumEncoder
from jaxclr.training import Config, Recipe, State, init_state, map_step, train_step
from jaxclr.training.session import AXIS, make_recipe
from jaxclr.training.step import take_views

Array = jax.Array

IMAGENET_IMAGES = 1281167  # only the schedule depends on it
# What libtpu asks for on a machine without a TPU.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def prepare_compiler() -> None:
    """Keeps JAX on the CPU and libtpu from looking for a TPU.

    Raises:
      UserError: libtpu is not installed.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError(
            "libtpu, the TPU's compiler, is not installed: pip install 'jax[tpu]'; no TPU is needed."
        )


def pod(topology: str) -> list[jax.Device]:
    """The chips of a pod that need not exist.

    Raises:
      UserError: libtpu knows no such pod.
    """
    options = {"chip_config_name": "megacore"} if topology.startswith("v4") else {}
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"libtpu has no topology '{topology}': {reason}") from error
    return list(described.devices)


def mesh_of(devices: list[jax.Device]) -> Mesh:
    """All chips along one axis, as `open_session` has them."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def spread_over(mesh: Mesh, shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """An array of the global batch, its rows spread over the mesh."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(AXIS)))


def info_nce_program(
    mesh: Mesh, rows: int, width: int, implementation: str, *, constant_keys: bool
) -> jax.stages.Lowered:
    """Value and gradient of `info_nce` at so many rows a chip."""

    def share(q: Array, k: Array) -> Array:
        return losses.info_nce(q, k, implementation=implementation, axis_name=AXIS)

    def value_and_gradient(q: Array, k: Array) -> tuple[Array, Any]:
        value, gradient = jax.value_and_grad(share, 0 if constant_keys else (0, 1))(q, k)
        return jax.lax.pmean(value, AXIS), gradient

    like = spread_over(mesh, (rows * mesh.size, width), jnp.float32)
    return _mapped(value_and_gradient, mesh, 2).lower(like, like)


def loss_program(recipe: Recipe, mesh: Mesh, rows: int, shape: tuple[int, ...]) -> jax.stages.Lowered:
    """Value and gradient of the method's objective, at embeddings as the step has them."""
    method, like = recipe.method, embedding_type(recipe, rows, shape)
    names = ["embeddings"]
    names += ["predictions"] if method.predictor is not None else []
    names += ["targets"] if isinstance(method.target, MomentumEncoder) else []
    like = spread_over(mesh, (rows * mesh.size, *like.shape[1:]), like.dtype)
    inputs = {name: (like,) * method.views for name in names}

    def value_and_gradient(inputs: dict[str, tuple[Array, ...]]) -> tuple[Array, Any]:
        share = lambda inputs: method.objective(outputs_of(method.target, inputs), AXIS)
        value, gradient = jax.value_and_grad(share)(inputs)
        return jax.lax.pmean(value, AXIS), gradient

    return _mapped(value_and_gradient, mesh, 1).lower(inputs)


def step_program(
    recipe: Recipe, mesh: Mesh, rows: int, shape: tuple[int, ...]
) -> jax.stages.Lowered:
    """The training step itself, from a state and images that are shapes only."""
    everywhere = NamedSharding(mesh, P())
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        jax.eval_shape(lambda: init_state(recipe, shape)),
    )
    step = functools.partial(train_step, recipe=recipe, axis_name=AXIS)
    images = spread_over(mesh, (rows * mesh.size, *shape), jnp.uint8)
    return map_step(step, mesh, "shard_map").lower(state, images)


def recipe_of(config: Config, *, global_batch: int, channels: int) -> Recipe:
    """The recipe at another batch size, for ImageNet's number of images, without their channels' statistics."""
    mean, std = (0.5,) * channels, (0.25,) * channels
    data = dataclasses.replace(config.data, mean=mean, std=std)
    return make_recipe(
        dataclasses.replace(config, batch_size=global_batch, data=data), IMAGENET_IMAGES
    )


def embedding_type(recipe: Recipe, rows: int, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """Shape and type of the embeddings of one view of a chip's images."""

    def embedding(state: State, images: Array) -> Array:
        view, *_ = take_views(state.step, images, recipe=recipe, axis_name=None)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return recipe.network.apply(variables, view, train=False).embedding

    state = jax.eval_shape(lambda: init_state(recipe, shape))
    return jax.eval_shape(embedding, state, jax.ShapeDtypeStruct((rows, *shape), jnp.uint8))


def _mapped(function: Callable[..., Any], mesh: Mesh, inputs: int) -> Any:
    return jax.jit(
        jax.shard_map(
            function,
            mesh=mesh,
            in_specs=(P(AXIS),) * inputs,
            out_specs=(P(), P(AXIS)),
            check_vma=False,
        )
    )
