"""Agreement of classes with clusters of k-means."""

import dataclasses
import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge

from jaxclr.affinity import unit_rows
from jaxclr.affinity.clustering import assign, k_means
from jaxclr.errors import UserError
from jaxclr.evaluation.protocols.protocol import Protocol, Result
from jaxclr.evaluation.subject import Subject

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ClusterAgreement(Protocol):
    """k-means of unit representations, and how the clusters of test images agree with classes."""

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
        train, test = (unit_rows(jnp.asarray(features.values)) for features in subject.features)
        keys = jax.random.split(jax.random.key(seed), self.restarts)
        tries = [_fit(key, train, count, self.iterations) for key in keys]
        _, centroids = min(tries, key=lambda one: one[0].item())
        return Result(agreement(subject.features[1].labels, np.asarray(assign(test, centroids))))


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


@functools.partial(jax.jit, static_argnames=("count", "iterations"))
def _fit(key: Array, rows: Array, count: int, iterations: int) -> tuple[Array, Array]:
    """Mean squared distance of rows from their centroids, and the centroids."""
    centroids, assignments = k_means(key, rows, count, iterations=iterations)
    return jnp.mean(jnp.sum((rows - centroids[assignments]) ** 2, axis=1)), centroids
