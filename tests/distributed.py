"""Run a per-device function over 1, 2 or 8 devices, by either mapper."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

PAIRWISE = ((2, "pmap"), (8, "shard_map"))
REST = ((1, "pmap"), (1, "shard_map"), (2, "shard_map"), (8, "pmap"))
GRID = (*PAIRWISE, *(pytest.param(*case, marks=pytest.mark.full) for case in REST))


def mesh(devices, names=("batch",)):
    shape = (devices,) if len(names) == 1 else (2, devices // 2)
    kinds = (jax.sharding.AxisType.Auto,) * len(names)
    return jax.make_mesh(shape, names, axis_types=kinds, devices=jax.devices()[:devices])


def map_rows(function, devices, how, names=("batch",)):
    """A function of global arrays whose rows are spread over devices; outputs are stacked by rows."""
    if how == "pmap":
        (name,) = names
        mapped = jax.pmap(function, axis_name=name, devices=jax.devices()[:devices])

        def run(*arrays):
            split = [np.reshape(a, (devices, -1) + np.shape(a)[1:]) for a in arrays]
            join = lambda a: np.asarray(a).reshape((-1,) + a.shape[2:])
            return jax.tree.map(join, jax.block_until_ready(mapped(*split)))

        return run
    spec = P(names if len(names) > 1 else names[0])
    mapped = jax.jit(
        jax.shard_map(
            function, mesh=mesh(devices, names), in_specs=spec, out_specs=spec, check_vma=False
        )
    )
    return lambda *arrays: jax.tree.map(np.asarray, jax.block_until_ready(mapped(*arrays)))


def loss_and_gradients(loss, arrays, devices, how, names=("batch",)):
    """Value of a loss for the global batch, and its gradient at every given array."""
    axis = names if len(names) > 1 else names[0]

    def share(*local):
        every = tuple(range(len(local)))
        value, gradients = jax.value_and_grad(functools.partial(loss, axis_name=axis), every)(*local)
        return value[None], gradients

    shares, gradients = map_rows(share, devices, how, names)(*arrays)
    return np.mean(shares), [gradient / devices for gradient in gradients]
