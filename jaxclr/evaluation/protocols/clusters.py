"""Agreement of classes with clusters of k-means."""

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxclr.affinity import gather_rows, unit_rows
from jaxclr.affinity.clustering import assign, k_means
from jaxclr.errors import UserError
from jaxclr.evaluation.features import shard_rows
from jaxclr.evaluation.protocols.protocol import Protocol, Result
from jaxclr.evaluation.subject import Subject
from jaxclr.processes.runtime import replicate

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ClusterAgreement(Protocol):
    """k-means of unit representations, and how the clusters of test images agree with classes.

    Every host and every device holds the representations of all training images, 4 N F bytes.
    Devices share the restarts.
    """

    clusters: Annotated[int, Ge(1)] | None = None
    """How many; None: as many as there are classes."""

    iterations: Annotated[int, Ge(1)] = 50
    """Of Lloyd, from the seeds of k-means++."""

    restarts: Annotated[int, Ge(1)] = 10
    """Runs of k-means; the one with the smallest distances on training images is used."""

    def run(self, subject: Subject, seed: int) -> Result:
        count = self.clusters or len(subject.classes)
        if count > subject.train.size:
            raise UserError(
                f"{count} clusters of {subject.train.size} training images; "
                "set --clusters to fewer."
            )
        train, test = subject.features
        rows = replicate(unit_rows(jnp.asarray(train.values)), subject.mesh)
        keys = jax.random.split(jax.random.key(seed), self.restarts)
        distances, centroids = _tries(keys, rows, count, self.iterations, subject.mesh)
        best = centroids[np.argmin(distances)]
        assigned = assign(unit_rows(jnp.asarray(test.values)), best)
        return Result(agreement(test.labels, np.asarray(assigned)))


def agreement(labels: np.ndarray, clusters: np.ndarray) -> dict[str, tuple[float]]:
    """Agreement of clusters with classes; their numbers may differ.

    Args:
      labels: classes, integers [n].
      clusters: integers [n].

    Returns:
      NMI (normalized by the arithmetic mean of both entropies), ARI, and the accuracy of the best
      assignment of clusters to classes, one to one.

    References:
      Kuhn, The Hungarian method for the assignment problem, 1955; Hubert and Arabie, Comparing
      partitions, 1985.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn import metrics
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(labels, clusters)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "NMI": (float(metrics.normalized_mutual_info_score(labels, clusters)),),
        "ARI": (float(metrics.adjusted_rand_score(labels, clusters)),),
        "accuracy": (float(matched / len(labels)),),
    }


def _tries(
    keys: Array, rows: Array, count: int, iterations: int, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Distances [n] and centroids [n, K, D] of runs of k-means, shared out among the devices."""
    data = shard_rows(np.asarray(jax.random.key_data(keys)), mesh)
    found = _fits(data, rows, count=count, iterations=iterations, mesh=mesh)
    distances, centroids = map(np.asarray, found)
    return distances[: len(keys)], centroids[: len(keys)]


@functools.partial(jax.jit, static_argnames=("count", "iterations", "mesh"))
def _fits(keys: Array, rows: Array, *, count: int, iterations: int, mesh: Mesh) -> Any:
    (axis,) = mesh.axis_names

    def of_device(keys: Array, rows: Array) -> Any:
        one = lambda key: _fit(jax.random.wrap_key_data(key), rows, count, iterations)
        return jax.tree.map(lambda leaf: gather_rows(leaf, axis), jax.lax.map(one, keys))

    specs = {"in_specs": (P(axis), P()), "out_specs": P(), "check_vma": False}
    return jax.shard_map(of_device, mesh=mesh, **specs)(keys, rows)


def _fit(key: Array, rows: Array, count: int, iterations: int) -> tuple[Array, Array]:
    """Mean squared distance of rows from their centroids, and the centroids."""
    centroids, assignments = k_means(key, rows, count, iterations=iterations)
    return jnp.mean(jnp.sum((rows - centroids[assignments]) ** 2, axis=1)), centroids
