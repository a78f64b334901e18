"""Losses of the nodes of a graph."""

import jax
import jax.numpy as jnp
import numpy as np
from battery import Entry, Golden, golden_view, lse, softmax, unit, views

from jaxclr import losses
from jaxclr.affinity import unit_rows

X0, X1 = golden_view(0), golden_view(1)
PAIRS = ((0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3), (5, 6), (6, 5), (7, 0), (0, 7))


def assigned(nodes, centers, temperature=0.4):
    return jax.nn.softmax(unit_rows(nodes) @ unit_rows(centers).T / temperature, axis=1)


def graph(generator, rows, width):
    edges = generator.integers(0, rows, size=(2, 3 * rows)).astype(np.int32)
    return softmax(generator.normal(size=(rows, 3))), edges


def community_density(r, edges, weight):
    n = len(r)
    adjacency = np.zeros((n, n))
    np.add.at(adjacency, tuple(edges), 1)
    f = r.T @ adjacency @ r
    density = (weight * f.sum() - (n - 1 + weight) * np.trace(f)) / max(n * (n - 1), 1)
    return density + np.trace(r.T @ r) / (2 * n)


def with_negatives(generator, rows, width):
    negatives = generator.integers(0, rows, size=(2, 3 * rows)).astype(np.int32)
    negatives[:, 0] = 0  # a node with itself
    return *views(1)(generator, rows, width), negatives


def sparsest_cut(z, negatives, alpha):
    laplacian = np.zeros((len(z), len(z)))
    for i, j in negatives.T:
        laplacian[i, i] += 1
        laplacian[j, j] += 1
        laplacian[i, j] -= 1
        laplacian[j, i] -= 1
    return alpha / np.trace(z.T @ laplacian @ z)


def two_partitions(generator, rows, width):
    return *views(2)(generator, rows, width), *views(2)(generator, rows, 4)


def community_contrast(h1, h2, r1, r2, temperature):
    def towards(h, other, r):
        community = r.argmax(axis=1)
        mean = lambda k: (
            unit(other)[community == k].mean(axis=0) if k in community else np.zeros(h.shape[1])
        )
        a = unit(h) @ np.stack([mean(k) for k in range(r.shape[1])]).T / temperature
        return np.mean(lse(a) - a[np.arange(len(h)), community])

    return (towards(h1, h2, r2) + towards(h2, h1, r1)) / 2


def golden_density(centers):
    edges = jnp.asarray(PAIRS, jnp.int32).T
    return losses.community_density(assigned(jnp.asarray(X0, centers.dtype), centers), edges)


def golden_contrast(h1, h2):
    centers = jnp.asarray(golden_view(12, rows=3), h1.dtype)
    return losses.community_contrast(h1, h2, assigned(h1, centers), assigned(h2, centers))


def learned(u, v):
    return jax.nn.sigmoid(jnp.sum(u + v, axis=-1))


def golden_weighted(z_a, z):
    sides = dict(row_values=(unit_rows(z_a),), column_values=(unit_rows(z),))
    return losses.weighted_info_nce(z_a, z, learned, **sides, temperature=0.9)


def by_sides(z_a, z, u, v, *, temperature, axis_name=None):
    """Weights from what goes with the rows and the columns, some of them zero."""

    def weights(u, v):
        products = jnp.tanh(u + v)
        return jnp.maximum(products, jnp.zeros_like(products))

    sides = dict(row_values=(u[:, 0],), column_values=(v[:, 0],))
    return losses.weighted_info_nce(
        z_a, z, weights, **sides, temperature=temperature, axis_name=axis_name
    )


def weighted(z_a, z, w, temperature):
    a = unit(z_a) @ unit(z).T / temperature
    total = np.sum(w * np.exp(a), axis=1)
    return np.mean(np.where(total > 0, np.log(np.where(total > 0, total, 1)) - np.diag(a), 0))


def matrix_of_weights(generator, rows, width):
    whole = generator.uniform(size=(rows, rows)) * (generator.uniform(size=(rows, rows)) < 0.7)
    return *views(2)(generator, rows, width), whole * (np.arange(rows) != 2)[:, None]


ENTRIES = (
    Entry(
        "sparsest_cut",
        losses.sparsest_cut,
        lambda z, pairs: sparsest_cut(z, pairs, 300.0),
        {"alpha": 300.0},
        make=with_negatives,
        spread=(0, None),
        rows=(16, 7, 2),
        exempt={
            "scaling": "embeddings are taken as they are",
            "permutation": "pairs name nodes by their index",
        },
        positive=("alpha",),
    ),
    Entry(
        "community_density",
        losses.community_density,
        lambda r, edges: community_density(r, edges, 0.9),
        {"weight": 0.9},
        make=graph,
        spread=(0, None),
        # The centers of this row are the first rows of its nodes, those of the next one are a view
        # of their own.
        golden=(
            Golden(
                "gCooL DeCA lam=1 K=3 (grad wrt centers)",
                (X0[:3],),
                golden_density,
                differentiated=(0,),
            ),
        ),
        exempt={
            "scaling": "rows are probabilities",
            "permutation": "edges name rows by their index",
        },
    ),
    Entry(
        "community_contrast",
        losses.community_contrast,
        lambda *arrays: community_contrast(*arrays, 0.4),
        {"temperature": 0.4},
        make=two_partitions,
        stopped=(2, 3),
        exempt={"slope": "the means of communities are constant"},
        golden=(Golden("gCooL ReSC cos tau=.4 K=3", (X0, X1), golden_contrast),),
    ),
    Entry(
        "weighted_info_nce",
        by_sides,
        lambda z_a, z, u, v: weighted(z_a, z, np.maximum(np.tanh(u[:, :1] + v[:, 0]), 0), 0.5),
        {"temperature": 0.5},
        make=views(4),
        golden=(Golden("AdaMEOW InfoNCE tau=.9 w=sigmoid(sum(u+v))", (X0, X1), golden_weighted),),
        exempt={"scaling": "the weights depend on the scale"},
        bfloat16_tolerance=0.05,
    ),
    Entry(
        "weighted_info_nce-matrix",
        losses.weighted_info_nce,
        lambda z_a, z, w: weighted(z_a, z, w, 0.5),
        {"temperature": 0.5},
        make=matrix_of_weights,
        exempt={
            "slope": "a weight of zero gets no gradient",
            "scaling": "the weights depend on the scale",
            "permutation": "the matrix of weights has columns in the order of the batch",
            "memory": "the caller gives the matrix of weights",
        },
    ),
)
