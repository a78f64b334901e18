"""Losses and the whole training step, lowered for TPU pods that need not be present."""

import dataclasses
import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from measure import on_devices
from step import OUTPUT_SPECS, loss_and_gradient, observation

from jaxclr import losses
from jaxclr.errors import UserError
from jaxclr.methods import Outputs
from jaxclr.runs.config import Config
from jaxclr.steps.batches import Batch
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.sharding import shardings, state_specs
from jaxclr.steps.state import State, image_examples, init_state
from jaxclr.steps.step import step_on
from jaxclr.training.session import make_recipe

Array = jax.Array

# The schedule depends on the first, and what some methods carry on both.
IMAGENET_IMAGES, IMAGENET_CLASSES = 1281167, 1000
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
            "libtpu, the TPU's compiler, is not installed: pip install 'jax[tpu]'; no TPU is "
            "needed."
        )


def pod(topology: str) -> list[jax.Device]:
    """The chips of a pod that need not exist.

    Raises:
      UserError: libtpu knows no such pod.
    """
    options = {"chip_config_name": "megacore"} if topology.startswith("v4") else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"libtpu has no topology '{topology}': {reason}") from error
    return list(described.devices)


def mesh_of(devices: list[jax.Device]) -> Mesh:
    """All chips along one axis, as `open_session` has them."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def info_nce_program(
    mesh: Mesh, rows: int, width: int, implementation: str, *, constant_keys: bool
) -> jax.stages.Lowered:
    """Value and gradient of `info_nce` with this number of rows a chip."""

    def share(q: Array, k: Array) -> Array:
        return losses.info_nce(q, k, implementation=implementation, axis_name=AXIS)

    def value_and_gradient(q: Array, k: Array) -> tuple[Array, Any]:
        value, gradient = jax.value_and_grad(share, 0 if constant_keys else (0, 1))(q, k)
        return jax.lax.pmean(value, AXIS), gradient

    like = jax.ShapeDtypeStruct((rows * mesh.size, width), jnp.float32)
    like = laid_out(like, mesh, P(AXIS))
    return on_devices(value_and_gradient, mesh, P(AXIS), (P(), P(AXIS))).lower(like, like)


def loss_program(
    recipe: Recipe, mesh: Mesh, rows: int, shape: tuple[int, ...]
) -> jax.stages.Lowered:
    """Value and gradient of the method's objective, at its inputs in the step."""
    state, batch = inputs(recipe, mesh, rows, shape)
    seen = jax.eval_shape(observation(recipe, mesh), state, batch)
    seen = Outputs(
        *(laid_out(part, mesh, spec) for part, spec in zip(seen, OUTPUT_SPECS, strict=True))
    )
    return loss_and_gradient(recipe, mesh).lower(seen, state.method_state)


def step_program(
    recipe: Recipe, mesh: Mesh, rows: int, shape: tuple[int, ...]
) -> jax.stages.Lowered:
    """The training step itself, from a state and a batch that are shapes only."""
    step = jax.jit(step_on(mesh, recipe), donate_argnums=0)
    return step.lower(*inputs(recipe, mesh, rows, shape))


def inputs(recipe: Recipe, mesh: Mesh, rows: int, shape: tuple[int, ...]) -> tuple[State, Batch]:
    """Shapes and shardings of the arguments of a step."""
    state = jax.eval_shape(lambda: init_state(recipe, image_examples(*shape)))
    count = rows * mesh.size
    number = jax.ShapeDtypeStruct((count,), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((count, *shape), jnp.uint8), number, number)
    placed = shardings(state_specs(state, recipe.sharding, mesh), mesh)
    like = lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    return jax.tree.map(like, state, placed), laid_out(batch, mesh, P(AXIS))


def laid_out(tree: Any, mesh: Mesh, spec: P) -> Any:
    """Shapes of arrays that lie on a mesh in one way."""
    sharding = NamedSharding(mesh, spec)
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(place, tree)


def recipe_of(config: Config, *, global_batch: int, channels: int) -> Recipe:
    """The recipe at another batch size for ImageNet's number of images; statistics are made up."""
    mean, std = (0.5,) * channels, (0.25,) * channels
    data = dataclasses.replace(config.data, mean=mean, std=std)
    config = dataclasses.replace(config, batch_size=global_batch, data=data)
    return make_recipe(config, images=IMAGENET_IMAGES, classes=IMAGENET_CLASSES)
