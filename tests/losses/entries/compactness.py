"""Node compactness, with adjacency matrices of all pairs and a loop over nodes."""

import numpy as np
from battery import Entry, unit, views

from jaxclr import losses

FEATURES, HIDDEN = 5, 4


def graph(generator, rows, width):
    """Embeddings, a graph of two paths with edges both ways, some dropped, and an encoder."""
    features = generator.normal(size=(rows, FEATURES))
    w1, b1 = generator.normal(size=(FEATURES, HIDDEN)), generator.normal(size=HIDDEN)
    w2, b2 = generator.normal(size=(HIDDEN, width)), generator.normal(size=width)
    pairs = [(i, i + step) for step in (1, 3) for i in range(rows - step)]
    edges = np.asarray([*pairs, *(pair[::-1] for pair in pairs)], np.int32).T
    kept = np.tile(generator.random(len(pairs)) < 0.7, 2)
    return (*views(1)(generator, rows, width), features, w1, b1, w2, b2, edges, kept)


def line(least, largest, weight, slope):
    """Slope and offset of the line below (for a positive weight) or above the activation."""
    if largest <= 0:
        return slope, 0.0
    if least >= 0:
        return 1.0, 0.0
    rise = (largest - slope * least) / (largest - least)
    return rise, (largest - rise * largest if weight < 0 else 0.0)


def node_compactness(z, x, w1, b1, w2, b2, edges, kept, drop, slope):
    n = len(z)

    def adjacency(edges, lost=lambda degree: 0 * degree):
        a = np.eye(n)
        a[tuple(edges)] = 1
        degree = a.sum(axis=1)
        root = 1 / np.sqrt(degree - lost(degree))
        return a * root[:, None] * root[None, :]

    whole, view = adjacency(edges), adjacency(edges[:, kept])
    upper = adjacency(edges, lambda d: np.minimum(np.maximum(d - 2, 0), np.round(drop * (d - 1))))
    lower = np.diag(np.diag(whole))
    phi = lambda value: np.where(value > 0, value, slope * value)

    def bounds(rows, bias):
        positive, negative = np.maximum(rows, 0), np.minimum(rows, 0)
        least = lower @ positive + upper @ negative + bias
        return least, upper @ positive + lower @ negative + bias

    def through(weights, between, bias):
        """Weights of the layer's input, and what does not depend on it."""
        inner, constant = np.zeros_like(weights), np.zeros(n)
        for i, j in np.ndindex(weights.shape):
            rise, offset = line(between[0][i, j], between[1][i, j], weights[i, j], slope)
            inner[i, j] = rise * weights[i, j]
            constant[i] += weights[i, j] * (rise * bias[j] + offset)
        return inner, constant

    first = bounds(x @ w1, b1)
    second = bounds(phi(whole @ x @ w1 + b1) @ w2, b2)
    z = unit(z)
    margin = np.stack([z[i] - np.delete(z, i, axis=0).mean(axis=0) for i in range(n)])
    margin, constant2 = through(margin, second, b2)
    back, constant1 = through(margin @ w2.T, first, b1)
    scores = view @ (view @ np.sum(x * (back @ w1.T), axis=1) + constant1) + constant2
    return np.mean(np.logaddexp(0, -scores))


# Of 1 to 4 edges a node may lose 0, 1, 2 and 2: at most all but one, and rounded.
SETTINGS = {"drop": 0.6, "slope": 0.25}

ENTRIES = (
    Entry(
        "node_compactness",
        losses.node_compactness,
        lambda *arrays: node_compactness(*arrays, **SETTINGS),
        SETTINGS,
        make=graph,
        spread=(0, 0, *(None,) * 6),
        rows=(16, 2),
        exempt={
            "scaling": "features are taken as they are",
            "permutation": "edges name nodes by their index",
        },
    ),
)
