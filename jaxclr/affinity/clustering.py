"""k-means on the device, and the concentration of its clusters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxclr.affinity import unit_rows
from jaxclr.affinity.tiles import matmul

Array = jax.Array

_DISTANCES = 2**24  # at most so many are held at once


class Clusters(NamedTuple):
    """Clusters of all training images, as prototype losses take them.

    Attributes:
      prototypes: centroids, unit, [K, D].
      assignments: the cluster of each image, int32 [N].
      concentrations: phi, the temperature of each cluster, [K].
    """

    prototypes: Array
    assignments: Array
    concentrations: Array


def cluster(
    key: Array, embeddings: Array, count: int, *, iterations: int, temperature: float
) -> Clusters:
    """k-means clusters of embeddings [N, D]; the mean concentration is the temperature."""
    rows = unit_rows(embeddings)
    centroids, assignments = k_means(key, rows, count, iterations=iterations)
    phi = concentrations(rows, centroids, assignments, temperature=temperature)
    return Clusters(unit_rows(centroids), assignments, phi)


def k_means(key: Array, rows: Array, count: int, *, iterations: int) -> tuple[Array, Array]:
    r"""Lloyd's iteration from the seeds of k-means++.

    A centroid without rows moves to one of the rows farthest from their centroids. Each iteration
    takes O(NKD) time, and so do the seeds; O((N + K)D) memory.

    Args:
      key: typed key [], for the seeds.
      rows: [N, D], float32 or float64.
      count: K, at most N.
      iterations: of Lloyd.

    Returns:
      Centroids [K, D], and the nearest of them to each row, int32 [N].

    References:
      Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, 2007.
    """
    step = lambda _, centroids: lloyd_step(rows, centroids)
    centroids = jax.lax.fori_loop(0, iterations, step, _seeds(key, rows, count))
    return centroids, assign(rows, centroids)


def lloyd_step(rows: Array, centroids: Array) -> Array:
    """The mean [K, D] of the rows of each centroid; a far row for a centroid without rows."""
    count = len(centroids)
    assignments = assign(rows, centroids)
    sizes = jnp.bincount(assignments, length=count)
    sums = jax.ops.segment_sum(rows, assignments, count)
    means = sums / jnp.maximum(sizes, 1).astype(rows.dtype)[:, None]
    farthest = jnp.argsort(-_squares(rows, centroids[assignments]))[:count]
    nth_empty = jnp.cumsum(sizes == 0) - 1
    return jnp.where((sizes == 0)[:, None], rows[farthest[nth_empty]], means)


def assign(rows: Array, centroids: Array) -> Array:
    """The nearest of the centroids [K, D] to each row [N, D], int32 [N]."""
    halves = jnp.sum(centroids * centroids, axis=1) / 2
    nearest = lambda row: jnp.argmin(halves - matmul(centroids, row)).astype(jnp.int32)
    at_once = min(len(rows), max(1, _DISTANCES // len(centroids)))
    return jax.lax.map(nearest, rows, batch_size=at_once)


def concentrations(
    rows: Array, centroids: Array, assignments: Array, *, temperature: float
) -> Array:
    r"""Concentration of each cluster, the temperature of its prototype (PCL).

    .. math:: \phi_k \propto \frac{1}{n_k \log(n_k + 10)} \sum_{i : a_i = k} \|v_i - c_k\|

    Clusters of fewer than two rows get the largest value. All are clipped to the 10th and 90th
    percentile and scaled to have the temperature as their mean. None is below a hundredth of it: a
    cluster of equal rows must not divide by zero.

    Args:
      rows: v [N, D].
      centroids: c [K, D].
      assignments: a [N].
      temperature: mean of the result.

    Returns:
      phi [K].

    References:
      Li et al., Prototypical Contrastive Learning of Unsupervised Representations, 2020
      (arXiv:2005.04966), eq. 12.
    """
    count = centroids.shape[0]
    distances = jnp.sqrt(_squares(rows, centroids[assignments]))
    sizes = jnp.bincount(assignments, length=count).astype(rows.dtype)
    totals = jax.ops.segment_sum(distances, assignments, count)
    phi = totals / (jnp.maximum(sizes, 1) * jnp.log(sizes + 10))
    phi = jnp.where(sizes > 1, phi, jnp.max(jnp.where(sizes > 1, phi, 0)))
    phi = jnp.clip(phi, *jnp.percentile(phi, jnp.array([10, 90])))
    typical = jnp.mean(phi)
    relative = jnp.where(typical > 0, phi / jnp.where(typical > 0, typical, 1), 1)
    return temperature * jnp.maximum(relative, 0.01)


def _seeds(key: Array, rows: Array, count: int) -> Array:
    """Rows drawn in turn, by their squared distance from the nearest seed so far (k-means++)."""

    def add(index: int, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        seeds, squares = drawn
        mass = jnp.cumsum(squares)
        point = jax.random.uniform(jax.random.fold_in(key, index), dtype=mass.dtype) * mass[-1]
        chosen = jnp.minimum(jnp.searchsorted(mass, point, side="right"), len(rows) - 1)
        seed = rows[chosen]
        return seeds.at[index].set(seed), jnp.minimum(squares, _squares(rows, seed[None]))

    first = rows[jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(rows))]
    seeds = jnp.zeros((count, rows.shape[1]), rows.dtype).at[0].set(first)
    return jax.lax.fori_loop(1, count, add, (seeds, _squares(rows, first[None])))[0]


def _squares(rows: Array, others: Array) -> Array:
    return jnp.sum((rows - others) ** 2, axis=1)
