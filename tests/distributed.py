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


def map_rows(function, devices, how, names=("batch",), spread=None):
    """A function of global arrays that are spread over devices; outputs are stacked by rows.

    spread has for each array the axis that runs over the batch, None for one that is whole on every
    device; by default it is the first axis of all.
    """
    if how == "pmap":
        (name,) = names
        shape = {"axis_name": name, "devices": jax.devices()[:devices]}

        def run(*arrays):
            axes = spread or (0,) * len(arrays)
            split = [
                a if axis is None else _split(a, axis, devices)
                for a, axis in zip(arrays, axes, strict=True)
            ]
            mapped = jax.pmap(function, in_axes=axes, **shape)
            join = lambda a: np.asarray(a).reshape((-1, *a.shape[2:]))
            return jax.tree.map(join, jax.block_until_ready(mapped(*split)))

        return run
    axis_name = names if len(names) > 1 else names[0]
    rows = P(axis_name)

    def run(*arrays):
        axes = spread or (0,) * len(arrays)
        specs = tuple(P() if axis is None else P(*(None,) * axis, axis_name) for axis in axes)
        mapped = jax.shard_map(
            function, mesh=mesh(devices, names), in_specs=specs, out_specs=rows, check_vma=False
        )
        return jax.tree.map(np.asarray, jax.block_until_ready(jax.jit(mapped)(*arrays)))

    return run


def _split(array, axis, devices):
    """The array with the axis of the batch cut in two, [devices, rows of each]."""
    shape = np.shape(array)
    return np.reshape(array, (*shape[:axis], devices, -1, *shape[axis + 1 :]))


def loss_and_gradients(loss, arrays, devices, how, names=("batch",), spread=None, places=None):
    """Value of a loss for the global batch, and its gradients at some arrays, by default all."""
    axis_name = names if len(names) > 1 else names[0]
    axes = spread or (0,) * len(arrays)
    places = tuple(range(len(arrays))) if places is None else places

    def share(*local):
        value, gradients = jax.value_and_grad(functools.partial(loss, axis_name=axis_name), places)(
            *local
        )
        # rows first, so that devices are stacked by rows; whole arrays get a row per device
        rows_first = [
            g[None] if axes[i] is None else jax.numpy.moveaxis(g, axes[i], 0)
            for i, g in zip(places, gradients, strict=True)
        ]
        return value[None], rows_first

    shares, gradients = map_rows(share, devices, how, names, axes)(*arrays)
    whole = [
        g.sum(axis=0) if axes[i] is None else np.moveaxis(g, 0, axes[i])
        for i, g in zip(places, gradients, strict=True)
    ]
    return np.mean(shares), [gradient / devices for gradient in whole]
