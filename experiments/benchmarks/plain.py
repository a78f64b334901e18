"""Losses as a few lines of jax.numpy, which form whatever their definition names.

All take two views [n, D]. What else a loss needs (a queue, a graph, a running matrix) is made from
their shape, and is the same for the implementation that is compared.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr import losses
from jaxclr.affinity import positives, unit_rows

Array = jax.Array

TEMPERATURE = 0.1
QUEUE = 4096  # rows
NEIGHBORS = 5  # edges of a node in each direction, and negatives of a node
HIDDEN = 64  # of the graph encoder
DROP, SLOPE = 0.4, 0.25
ONE_TENTH = {"temperature": TEMPERATURE}


def info_nce(q: Array, k: Array) -> Array:
    logits = unit_rows(q) @ unit_rows(k).T / TEMPERATURE
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.diag(logits))


def clip(z1: Array, z2: Array) -> Array:
    return (info_nce(z1, z2) + info_nce(z2, z1)) / 2


def clip_of_info_nce(z1: Array, z2: Array) -> Array:
    one_way = functools.partial(losses.info_nce, temperature=TEMPERATURE)
    return (one_way(z1, z2) + one_way(z2, z1)) / 2


def siglip(z1: Array, z2: Array) -> Array:
    logits = unit_rows(z1) @ unit_rows(z2).T / TEMPERATURE - 10
    labels = 2 * jnp.eye(len(z1)) - 1
    return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(labels * logits), axis=1))


def symmetric_loss(q: Array, k: Array) -> Array:
    logits = unit_rows(q) @ unit_rows(k).T / TEMPERATURE
    return jnp.linalg.norm(logits - logits.T)


def mmcr(z1: Array, z2: Array) -> Array:
    return -jnp.sum(jnp.linalg.svd((unit_rows(z1) + unit_rows(z2)) / 2, compute_uv=False))


def frossl(z1: Array, z2: Array) -> Array:
    """The correlation of images, n x n."""
    views = [z / jnp.linalg.norm(z, axis=0, keepdims=True) for z in (z1, z2)]
    grams = [view @ view.T / view.shape[1] for view in views]
    spread = sum(jnp.log(jnp.sum(gram**2)) for gram in grams)
    return spread + jnp.sum((views[0] - views[1]) ** 2) / 2 / len(z1)


def running(width: int) -> Array:
    """A running covariance or correlation."""
    return jnp.diag(jnp.linspace(0.1, 1, width)) / width


def tico(q: Array, k: Array) -> Array:
    """The energy of each row."""
    q, k = unit_rows(q), unit_rows(k)
    covariance = 0.9 * running(q.shape[1]) + 0.1 * q.T @ q / len(q)
    return 1 - jnp.mean(positives(q, k)) + 8 * jnp.mean(positives(q @ covariance, q))


def directions(width: int) -> Array:
    return jax.random.normal(jax.random.key(0), (256, width))


def lejepa(z1: Array, z2: Array) -> Array:
    """Cosines and sines of all knots, n x K x 17."""
    t = jnp.linspace(0, 3, 17)[None, :]
    normal = jnp.exp(-(t**2) / 2)

    def statistic(z: Array) -> Array:
        angles = (z @ unit_rows(directions(z.shape[1])).T)[:, :, None] * t[None]
        cosines, sines = jnp.cos(angles).mean(0), jnp.sin(angles).mean(0)
        errors = (cosines - normal) ** 2 + sines**2
        return 2 * len(z) * jnp.mean(jnp.trapezoid(errors * normal, t))

    distance = jnp.mean((z1 - z2) ** 2) / 4
    return 0.95 * distance + 0.05 * (statistic(z1) + statistic(z2)) / 2


def vibcreg(z1: Array, z2: Array) -> Array:
    """Rows of both views minus their mean, dimensions divided by their norm."""
    loss = 25 * jnp.mean((z1 - z2) ** 2)
    for view in (z1, z2):
        centered = view - jnp.mean(view, axis=0, keepdims=True)
        deviations = jnp.sqrt(jnp.var(view, axis=0, ddof=1) + 1e-4)
        scaled = centered / jnp.linalg.norm(centered, axis=0, keepdims=True)
        correlation = scaled.T @ scaled * (1 - jnp.eye(view.shape[1]))
        loss += 25 * jnp.mean(jax.nn.relu(1 - deviations)) + 200 * jnp.mean(correlation**2)
    return loss


def predicted(matrix: Array, z1: Array, z2: Array) -> Array:
    """BYOL of both views, each the target of the other, and a linear predictor."""
    one_way = lambda p, t: jnp.sum(
        (unit_rows(p @ matrix) - unit_rows(jax.lax.stop_gradient(t))) ** 2, axis=1
    )
    return jnp.mean(one_way(z1, z2) + one_way(z2, z1))


def direct_pred(z1: Array, z2: Array) -> Array:
    values, vectors = jnp.linalg.eigh(running(z1.shape[1]))
    roots = jnp.sqrt(values / values[-1]) + 0.01
    return predicted(vectors @ jnp.diag(roots) @ vectors.T, z1, z2)


def direct_copy(z1: Array, z2: Array) -> Array:
    return predicted(running(z1.shape[1]) + 0.3 * jnp.eye(z1.shape[1]), z1, z2)


def dino(z1: Array, z2: Array) -> Array:
    """Two views of the student, and the same scores as those of the teacher."""
    center = jnp.mean(jnp.concatenate([z1, z2]), axis=0, keepdims=True)
    share = lambda scores: jax.lax.stop_gradient(jax.nn.softmax((scores - center) / 0.04))
    one_way = lambda s, t: -jnp.mean(jnp.sum(share(t) * jax.nn.log_softmax(s / 0.1), axis=1))
    return (one_way(z1, z2) + one_way(z2, z1)) / 2


def dino_of_two(z1: Array, z2: Array) -> Array:
    return losses.dino([z1, z2], [z1, z2], losses.dino_center([z1, z2]))


def queue(width: int) -> Array:
    return jax.random.normal(jax.random.key(1), (QUEUE, width))


def nnclr(z: Array, p: Array) -> Array:
    """Cosines of all rows and the queue, and of all neighbors and predictions."""
    keys = unit_rows(queue(z.shape[1]))
    neighbors = jax.lax.stop_gradient(keys[jnp.argmax(unit_rows(z) @ keys.T, axis=1)])
    return info_nce(neighbors, p)


def ressl(q: Array, k: Array) -> Array:
    """Cosines of all rows and the queue, of both views."""
    keys = unit_rows(queue(q.shape[1]))
    student = jax.nn.log_softmax(unit_rows(q) @ keys.T / TEMPERATURE, axis=1)
    teacher = jax.nn.softmax(unit_rows(jax.lax.stop_gradient(k)) @ keys.T / 0.04, axis=1)
    return -jnp.mean(jnp.sum(teacher * student, axis=1))


def koleo(z: Array, _: Array) -> Array:
    """Cosines of all pairs."""
    rows = unit_rows(z)
    cosines = jax.lax.stop_gradient(jnp.where(jnp.eye(len(z), dtype=bool), -2, rows @ rows.T))
    difference = rows - rows[jnp.argmax(cosines, axis=1)]
    return -jnp.mean(jnp.log(jnp.sum(difference**2, axis=1) + 1e-16)) / 2


def negatives(nodes: int) -> np.ndarray:
    """Pairs [2, E] of each node with others."""
    drawn = np.random.default_rng(1).integers(nodes, size=NEIGHBORS * nodes, dtype=np.int32)
    return np.stack([np.repeat(np.arange(nodes, dtype=np.int32), NEIGHBORS), drawn])


def sparsest_cut(z: Array, _: Array) -> Array:
    """The Laplacian, n x n, made beforehand."""
    first, second = negatives(len(z))
    laplacian = np.zeros((len(z), len(z)), np.float32)
    for sign, rows, columns in ((1, first, first), (1, second, second)):
        np.add.at(laplacian, (rows, columns), sign)
    for rows, columns in ((first, second), (second, first)):
        np.add.at(laplacian, (rows, columns), -1)
    return 1e5 / jnp.trace(z.T @ jnp.asarray(laplacian) @ z)


def graph(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges [2, E], each both ways, and those that a view keeps [E]."""
    steps = np.arange(1, NEIGHBORS + 1)[:, None]
    first = np.broadcast_to(np.arange(nodes), (NEIGHBORS, nodes))
    second = (first + steps) % nodes
    one_way = np.unique(np.sort(np.stack([first.ravel(), second.ravel()]), axis=0), axis=1)
    one_way = one_way[:, one_way[0] != one_way[1]]
    kept = np.random.default_rng(2).random(one_way.shape[1]) < 1 - DROP
    edges = np.concatenate([one_way, one_way[::-1]], axis=1).astype(np.int32)
    return edges, np.tile(kept, 2)


def encoder(width: int) -> tuple[Array, Array, Array, Array]:
    """Weights and biases of two graph convolutions."""
    draw = np.random.default_rng(3)
    make = lambda *shape: jnp.asarray(draw.normal(size=shape) / np.sqrt(shape[0]), jnp.float32)
    return make(width, HIDDEN), make(HIDDEN), make(HIDDEN, width), make(width)


def node_compactness(z: Array, x: Array) -> Array:
    """Adjacency matrices, n x n, made beforehand."""
    nodes, (edges, kept) = len(z), graph(len(z))
    w1, b1, w2, b2 = encoder(z.shape[1])

    def adjacency(edges: np.ndarray, drop: float = 0.0) -> Array:
        matrix = np.eye(nodes, dtype=np.float32)
        matrix[edges[1], edges[0]] = 1
        degrees = matrix.sum(axis=1)
        lost = np.minimum(np.maximum(degrees - 2, 0), np.round(drop * (degrees - 1)))
        roots = 1 / np.sqrt(degrees - lost)
        return jnp.asarray(matrix * roots[:, None] * roots[None, :], jnp.float32)

    whole, upper, view = adjacency(edges), adjacency(edges, DROP), adjacency(edges[:, kept])
    lower = jnp.diag(jnp.diag(whole))
    activate = lambda inputs: jnp.where(inputs > 0, inputs, SLOPE * inputs)

    def bounds(rows: Array, bias: Array) -> tuple[Array, Array]:
        center = (upper + lower) / 2 @ rows + bias[None, :]
        radius = (upper - lower) / 2 @ jnp.abs(rows)
        return center - radius, center + radius

    def through(weights: Array, between: tuple[Array, Array], bias: Array) -> tuple[Array, Array]:
        least, most = between
        bends = (least < 0) & (most > 0)
        width = jnp.where(bends, most - least, 1)
        rise = jnp.where(bends, most - SLOPE * least, 1)
        line = jnp.where(bends, rise / width, jnp.where(most > 0, 1, SLOPE))
        offset = jnp.where(bends & (weights < 0), (SLOPE - 1) * most * least / rise, 0)
        inner = line * weights
        return inner, jnp.sum(inner * (offset + bias[None, :]), axis=1)

    first = bounds(x @ w1, b1)
    second = bounds(activate(whole @ (x @ w1) + b1[None, :]) @ w2, b2)
    unit = unit_rows(z)
    others = (jnp.sum(unit, axis=0, keepdims=True) - unit) / (nodes - 1)
    back, constant2 = through(unit - others, second, b2)
    back, constant1 = through(back @ w2.T, first, b1)
    scores = view @ (view @ jnp.sum(x * (back @ w1.T), axis=1) + constant1) + constant2
    return jnp.mean(jax.nn.softplus(-scores))


# The losses of this library on the same arrays, beside the definitions above: name, ours, plain.
PAIRS = {
    "mmcr": {"QR": lambda z1, z2: losses.mmcr((z1, z2)), "dense": mmcr},
    "frossl": {"D x D": lambda z1, z2: losses.frossl((z1, z2)), "dense": frossl},
    "tico": {
        "D x D": lambda q, k: losses.tico(q, k, running(q.shape[1])),
        "dense": tico,
    },
    "lejepa": {
        "products": lambda z1, z2: losses.lejepa((z1, z2), directions(z1.shape[1])),
        "dense": lejepa,
    },
    "vibcreg": {"D x D": losses.vibcreg, "plain jnp": vibcreg},
    "direct_pred": {
        "ours": lambda z1, z2: losses.direct_pred(z1, z2, z1, z2, running(z1.shape[1])),
        "plain jnp": direct_pred,
    },
    "direct_copy": {
        "ours": lambda z1, z2: losses.direct_copy(z1, z2, z1, z2, running(z1.shape[1])),
        "plain jnp": direct_copy,
    },
    "dino": {"ours": dino_of_two, "plain jnp": dino},
    "nnclr": {
        **{
            name: lambda z, p, name=name: losses.nnclr(
                z, p, queue(z.shape[1]), implementation=name, **ONE_TENTH
            )
            for name in ("streamed", "dense")
        },
        "plain jnp": nnclr,
    },
    "ressl": {
        **{
            name: lambda q, k, name=name: losses.ressl(
                q, k, queue(q.shape[1]), implementation=name, **ONE_TENTH
            )
            for name in ("streamed", "dense")
        },
        "plain jnp": ressl,
    },
    "koleo": {"streamed": lambda z, _: losses.koleo(z), "plain jnp": koleo},
    "sparsest_cut": {
        "pairs": lambda z, _: losses.sparsest_cut(z, negatives(len(z))),
        "Laplacian": sparsest_cut,
    },
    "node_compactness": {
        "edges": lambda z, x: losses.node_compactness(
            z, x, *encoder(z.shape[1]), *graph(len(z)), drop=DROP, slope=SLOPE
        ),
        "adjacency": node_compactness,
    },
}
