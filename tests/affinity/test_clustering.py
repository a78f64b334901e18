"""k-means against scikit-learn's, and the concentrations of its clusters against their formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from jaxclr.affinity import clustering
from jaxclr.affinity.clustering import cluster, concentrations, k_means, lloyd_step

BLOBS, EACH, WIDTH = 7, 30, 5


@functools.cache
def blobs():
    generator = np.random.default_rng(0)
    centers = 10 * generator.normal(size=(BLOBS, WIDTH))
    rows = np.repeat(centers, EACH, axis=0) + 0.3 * generator.normal(size=(BLOBS * EACH, WIDTH))
    return jnp.asarray(generator.permutation(rows), jnp.float32)


find = jax.jit(functools.partial(k_means, count=BLOBS, iterations=10))


@pytest.mark.parametrize("seed", range(5))
def test_blobs_are_found_as_scikit_learn_finds_them(seed):
    centroids, assignments = find(jax.random.key(seed), blobs())
    known = KMeans(BLOBS, n_init=10, random_state=0).fit(np.asarray(blobs(), np.float64))
    assert assignments.dtype == jnp.int32
    assert adjusted_rand_score(known.labels_, assignments) == 1
    order = lambda centers: np.asarray(centers)[np.argsort(np.asarray(centers)[:, 0])]
    np.testing.assert_allclose(order(centroids), order(known.cluster_centers_), atol=1e-4)


def test_a_key_gives_one_clustering():
    one, same, other = (find(jax.random.key(seed), blobs()) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert not np.array_equal(one[1], other[1])


def test_few_distances_at_once_change_nothing(monkeypatch):
    want = find(jax.random.key(0), blobs())
    monkeypatch.setattr(clustering, "_DISTANCES", 8 * BLOBS)  # 8 rows, which do not divide 210
    found = jax.jit(lambda key: k_means(key, blobs(), BLOBS, iterations=10))(jax.random.key(0))
    np.testing.assert_array_equal(found[1], want[1])
    np.testing.assert_allclose(found[0], want[0], atol=1e-5)


def test_a_step_is_lloyds_and_moves_empty_clusters_to_the_farthest_rows():
    rows = jnp.asarray([[0.0, 0], [0, 2], [10, 0], [10, 6], [10, 3]])
    centroids = jnp.asarray([[0.0, 0.5], [99, 99], [10, 1], [-99, 99]])
    moved = lloyd_step(rows, centroids)
    want = [[0, 1], [10, 6], [10, 3], [10, 3]]  # distances are 0.5, 1.5, 1, 5 and 2
    np.testing.assert_allclose(moved, want, atol=1e-6)


@pytest.mark.parametrize("count", [3, 5])
def test_fewer_kinds_of_rows_than_clusters(count):
    rows = jnp.tile(jnp.eye(3), (4, 1))
    found = cluster(jax.random.key(0), rows, count, iterations=5, temperature=0.2)
    kinds = np.asarray(found.assignments).reshape(4, 3)
    assert (kinds == kinds[:1]).all() and len(set(kinds[0])) == 3
    np.testing.assert_allclose(found.prototypes[kinds[0]], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found.concentrations, 0.2, rtol=1e-6)


def test_a_cluster_of_each_row():
    rows = blobs()[:20]
    _, assignments = k_means(jax.random.key(0), rows, 20, iterations=3)
    assert sorted(assignments.tolist()) == list(range(20))


def test_concentrations_are_numpys():
    generator = np.random.default_rng(1)
    rows, centroids = generator.normal(size=(60, 4)), generator.normal(size=(12, 4))
    assignments = generator.integers(0, 10, size=60)
    assignments[assignments == 3] = 4  # 3, 10 and 11 are empty
    assignments[0], assignments[assignments == 7] = 7, 8  # a cluster of one, or of none
    phi = np.zeros(12)
    for k in range(12):
        own = rows[assignments == k]
        if len(own) > 1:
            distances = np.sqrt(((own - centroids[k]) ** 2).sum(1))
            phi[k] = distances.mean() / np.log(len(own) + 10)
    phi[phi == 0] = phi.max()
    phi = np.clip(phi, np.percentile(phi, 10), np.percentile(phi, 90))
    found = concentrations(
        jnp.asarray(rows), jnp.asarray(centroids), jnp.asarray(assignments), temperature=0.3
    )
    np.testing.assert_allclose(found, 0.3 * phi / phi.mean(), rtol=1e-5)


def test_no_concentration_vanishes():
    rows = jnp.concatenate([jnp.zeros((20, 2)), jnp.asarray([[5.0, 0], [7, 0]])])
    assignments = jnp.concatenate([jnp.arange(20) // 2, jnp.full(2, 10)])
    centroids = jnp.zeros((11, 2)).at[10, 0].set(6)
    found = concentrations(rows, centroids, assignments, temperature=0.2)
    assert np.isfinite(found).all() and found.min() > 1e-3
