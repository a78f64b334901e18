"""Features on the host or over devices: rows of a matrix, and which of them count."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Array = jax.Array
Tree = Any


class Features(NamedTuple):
    """Representations, float32 [N, F], and their labels, int32 [N].

    Values are an array of the host, or sharded by rows over the devices of all processes. The label
    -1 leaves a row out: it is padding, a damaged image, or an example without a label.
    """

    values: np.ndarray | Array
    labels: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Indices of the rows that count."""
        return np.flatnonzero(self.labels >= 0)

    def on_host(self) -> "Features":
        """The rows that count, on the host of every process."""
        return Features(host_rows(self.values)[self.known], self.labels[self.known])


def mesh_of(*arrays: np.ndarray | Array) -> Mesh | None:
    """The devices over which the rows of one of the arrays are sharded; None if none of them is."""
    for array in arrays:
        if isinstance(array, Tracer) or not isinstance(array, Array):
            continue
        sharding = array.sharding
        if isinstance(sharding, NamedSharding) and len(sharding.spec):
            mesh, first = sharding.mesh, sharding.spec[0]
            if isinstance(mesh, Mesh) and mesh.axis_names in (first, (first,)):
                return mesh
    return None


def shard_rows(array: np.ndarray | Array, mesh: Mesh, *, fill: int = 0) -> Array:
    """Rows [n, ...] over the devices; an array of the host is padded at its end."""
    if isinstance(array, Array) and mesh_of(array) == mesh:
        return array
    host = np.asarray(array)
    padding = [(0, -len(host) % mesh.size)] + [(0, 0)] * (host.ndim - 1)
    host = np.pad(host, padding, constant_values=fill)
    by_rows = NamedSharding(mesh, P(mesh.axis_names))
    return jax.make_array_from_callback(host.shape, by_rows, lambda index: host[index])


def host_rows(array: np.ndarray | Array, rows: np.ndarray | None = None) -> np.ndarray:
    """Some rows of features, by default all, on the host of every process."""
    mesh = mesh_of(array)
    if mesh is None:
        return np.asarray(array) if rows is None else np.asarray(array[rows])
    return np.asarray(_everywhere(array, rows, mesh=mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def _everywhere(array: Array, rows: np.ndarray | None, *, mesh: Mesh) -> Array:
    some = array if rows is None else array[rows]
    return jax.lax.with_sharding_constraint(some, NamedSharding(mesh, P()))


def finite_rows(array: np.ndarray | Array) -> np.ndarray:
    """Whether each row of features holds neither a NaN nor an infinity, bool [N]."""
    mesh = mesh_of(array)
    if mesh is None:
        return np.isfinite(np.asarray(array).sum(axis=1))
    return np.asarray(_finite_everywhere(array, mesh=mesh))


@functools.partial(jax.jit, static_argnames="mesh")
def _finite_everywhere(array: Array, *, mesh: Mesh) -> Array:
    finite = jnp.isfinite(array).all(axis=1)
    return jax.lax.with_sharding_constraint(finite, NamedSharding(mesh, P()))
