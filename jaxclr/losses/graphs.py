"""Losses of the nodes of a graph: communities, and negatives that are weighted."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_embeddings,
    check_floats,
    check_ids,
    check_positive,
    gather_rows,
    positives,
    row_logsumexp_of,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.tiles import TILE, matmul

Array = jax.Array


def community_density(
    assignments: Array,
    edges: Array,
    *,
    weight: float | Array = 1.0,
    axis_name: AxisName = None,
) -> Array:
    r"""Edge density between less within communities, plus their mean square size (gCooL's DeCA).

    .. math:: \frac{\lambda \sum_{kl} F_{kl} - (n - 1 + \lambda) \operatorname{tr} F}{n (n - 1)}
       + \frac{\operatorname{tr} R^\top R}{2n}, \qquad F = R^\top A R

    over all n nodes. Neither A nor F is formed: O(nK + EK). A graph of one node has no density, and
    its first term is 0.

    Needs: assignments to communities, edges.
    Cost: (B + E)K.
    Global batch: densities.

    >>> assignments = jax.nn.softmax(jax.random.normal(jax.random.key(0), (8, 4)))
    >>> edges = jnp.stack([jnp.arange(8), (jnp.arange(8) + 1) % 8])
    >>> round(float(losses.community_density(assignments, edges)), 2)
    0.09

    Args:
      assignments: R, the communities' probabilities of each node, [n, K], any float dtype. The
        official code has R = softmax(cos(sg h, centers) / tau), so that this loss moves the centers
        alone: the caller stops h.
      edges: [2, E] integers, source and target of each directed edge, as indices among the nodes of
        all devices. All edges of the graph, the same on every device; an edge both ways is given
        twice.
      weight: lambda, of edges between communities; not negative.
      axis_name: mapped axis over which the nodes are spread; None if these are all of them.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the whole graph.

    Raises:
      TypeError: assignments is not an array of floats, edges none of integers, or weight is not a
        number.
      ValueError: assignments is not a matrix, edges is not [2, E] or names no node, or
        weight is negative.

    References:
      Li et al., Graph Communal Contrastive Learning, 2022 (arXiv:2110.14863).
    """
    (assignments,) = check_floats(assignments=(assignments, "n K"))
    check_positive("weight", weight, zero=True)
    nodes = batch_size(assignments, axis_name)
    sources, targets = check_edges("edges", edges, nodes)
    every = gather_rows(assignments, axis_name)
    within = jnp.sum(every[sources] * every[targets])
    mass = jnp.sum(every, axis=1)
    between = jnp.sum(mass[sources] * mass[targets])
    density = weight * between - (nodes - 1 + weight) * within
    return density / max(nodes * (nodes - 1), 1) + jnp.sum(every * every) / (2 * nodes)


def sparsest_cut(
    z: Array, negatives: Array, *, alpha: float | Array = 1e5, axis_name: AxisName = None
) -> Array:
    r"""Inverse of the summed squared distances of negative pairs (SCE).

    .. math:: \frac{\alpha}{\sum_{(i, j)} \|z_i - z_j\|^2}
       = \frac{\alpha}{\operatorname{tr} Z^\top L Z}

    where L is the Laplacian of the graph of negatives. Positives do not appear: the encoder, an
    average over neighbors, keeps them close. A sum below 1e-12 counts as 1e-12, without gradient;
    the authors' code, known here from copies of it, divides by 0. It forms L as an n x n matrix, of
    s nodes drawn uniformly for each node with repetition, once for all epochs; one copy does not
    make it symmetric, and then its trace is not a sum of distances.

    Needs: node embeddings, negative pairs.
    Cost: BD + ED.
    Global batch: distances of pairs.

    >>> z = jax.random.normal(jax.random.key(0), (8, 4))
    >>> negatives = jnp.stack([jnp.arange(8), (jnp.arange(8) + 3) % 8])
    >>> round(float(losses.sparsest_cut(z, negatives)), 2)
    1025.44

    Args:
      z: node embeddings, [n, D], any float dtype; taken as they are.
      negatives: [2, E] integers, the nodes of each pair, as indices among the nodes of all devices;
        the same on every device. A pair may repeat; a pair of a node with itself counts 0.
      alpha: positive. The official 100,000 is for 19,793 nodes with 5 negatives each.
      axis_name: mapped axis over which the nodes are spread; None if these are all of them.

    Returns:
      The loss of the whole graph, the same on every device.

    Raises:
      TypeError: z is not an array of floats, negatives not one of integers, or alpha is not a
        number.
      ValueError: z is not a matrix, negatives is not [2, E] or names no node, or alpha is not
        positive.

    References:
      Zhang et al., SCE: Scalable Network Embedding from Sparsest Cut, 2020 (arXiv:2006.16499).
    """
    (z,) = check_embeddings(z=z)
    check_positive("alpha", alpha)
    first, second = check_edges("negatives", negatives, batch_size(z, axis_name))
    every = gather_rows(z, axis_name)
    total = jnp.sum((every[first] - every[second]) ** 2)
    return alpha / jnp.maximum(total, jnp.asarray(1e-12, z.dtype))


def community_contrast(
    h1: Array,
    h2: Array,
    assignments1: Array,
    assignments2: Array,
    *,
    temperature: float | Array = 0.4,
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each node's community in the other view, by cosine (gCooL's ReSC).

    .. math:: \frac{1}{2n} \sum_i \left[ -\log p(c_2(i) \mid h_{1i}, M_2)
       - \log p(c_1(i) \mid h_{2i}, M_1) \right],
       \qquad p(k \mid h, M) = \operatorname{softmax}_k(M \hat h / \tau)

    with :math:`c_v(i)` the most probable community of node i in view v, and the row :math:`M_{v,k}`
    the mean of that community's unit embeddings in view v, constant and not normalized again. As in
    the official code an empty community stays a negative, with a mean of zero.

    Needs: assignments to communities.
    Cost: BKD.
    Global batch: means by community.

    >>> h1, h2, r1, r2 = jax.random.uniform(jax.random.key(0), (4, 8, 4))
    >>> round(float(losses.community_contrast(h1, h2, r1, r2)), 2)
    1.12

    Args:
      h1: node embeddings of one view, [n, D], any float dtype; rows are normalized here.
      h2: node embeddings of the other view, [n, D].
      assignments1: communities' probabilities, or any scores, of the nodes in the first view,
        [n, K]; only the index of each row's largest counts, so that they receive no gradient.
      assignments2: the same of the second view, [n, K].
      temperature: tau; positive.
      axis_name: mapped axis over which the nodes are spread; None if these are all of them.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the whole graph.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: shapes do not fit, or temperature is not positive.

    References:
      Li et al., Graph Communal Contrastive Learning, 2022 (arXiv:2110.14863).
    """
    h1, h2, assignments1, assignments2 = check_floats(
        h1=(h1, "n D"),
        h2=(h2, "n D"),
        assignments1=(assignments1, "n K"),
        assignments2=(assignments2, "n K"),
    )
    check_positive("temperature", temperature)
    h1, h2 = unit_rows(h1), unit_rows(h2)

    def towards(nodes: Array, others: Array, assignments: Array) -> Array:
        communities = jnp.argmax(assignments, axis=1)
        members = jax.nn.one_hot(communities, assignments.shape[1], dtype=others.dtype)
        sums, sizes = sum_over((matmul(members.T, others), jnp.sum(members, axis=0)), axis_name)
        means = jax.lax.stop_gradient(sums / jnp.maximum(sizes, 1)[:, None])
        logits = matmul(nodes, means.T) / temperature
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.sum(members * logits, axis=1))

    return (towards(h1, h2, assignments2) + towards(h2, h1, assignments1)) / 2


def weighted_info_nce(
    z_a: Array,
    z: Array,
    weights: Callable[..., Array] | Array,
    *,
    row_values: tuple[Array, ...] = (),
    column_values: tuple[Array, ...] = (),
    temperature: float | Array = 0.9,
    axis_name: AxisName = None,
) -> Array:
    r"""InfoNCE whose denominator weighs every pair, the positive one too (MEOW, AdaMEOW).

    .. math:: \frac1B \sum_i \left[ \log \sum_j w_{ij} e^{s_{ij}} - s_{ii} \right],
       \qquad s = \hat Z_a \hat Z^\top / \tau

    A pair of weight zero is excluded and its weight receives no gradient. A row without nonzero
    weights counts 0.

    MEOW's weight of a pair is the number of clusterings that separate it. The positive pair has
    weight 0::

        apart = lambda a, b: jnp.sum(a != b, axis=-1).astype(jnp.float32)
        values = {"row_values": (clusters,), "column_values": (clusters,)}  # clusters [b, R]
        weighted_info_nce(z_a, z, apart, **values)

    AdaMEOW learns the weights: a perceptron of the sum of both embeddings, whose first layer is
    linear in it and can be applied to either side beforehand; `weights` may close over the
    parameters of the others.

    Needs: negatives, weights of pairs.
    Cost: B²(D + its own).
    Global batch: row sums over all columns.

    >>> z_a, z = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> weights = 1.0 - 0.5 * jnp.eye(8)
    >>> round(float(losses.weighted_info_nce(z_a, z, weights)), 2)
    1.85

    Args:
      z_a: coarse embeddings, [b, D], any float dtype; rows are normalized here.
      z: fine embeddings, [b, D].
      weights: a function that takes a tile of row_values, each [m, 1, ...], then of column_values,
        each [1, n, ...], and gives their weights [m, n], zero or more; it is called tile by tile,
        so that no [b, B] is held. Or the weights themselves, [b, B] of this device's rows against
        all columns, which makes the whole computation dense.
      row_values: for a function: arrays [b, ...] that go with the rows of z_a.
      column_values: for a function: arrays [b, ...] that go with the rows of z, of this device.
      temperature: tau; positive. The papers take 0.4 to 1.
      axis_name: mapped axis over which the batch is spread; None if z_a and z are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, temperature no number, or values are given
        beside an array of weights.
      ValueError: shapes do not fit, or temperature is not positive.

    References:
      Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Adaptively
      Weighted Negative Samples, 2022 (arXiv:2212.13847).
    """
    z_a, z = check_embeddings(z_a=z_a, z=z)
    check_positive("temperature", temperature)
    q, k = unit_rows(z_a) / temperature, unit_rows(z)
    if callable(weights):
        _check_values("row_values", row_values, len(q))
        _check_values("column_values", column_values, len(k))

        def weighted(products: Array, *values: Array) -> Array:
            return _weighted(products, weights(*values))

        logsumexp = row_logsumexp_of(
            weighted,
            q,
            k,
            row_values=row_values,
            column_values=column_values,
            axis_name=axis_name,
            tile=_tile_for(row_values + column_values),
        )
    else:
        if row_values or column_values:
            raise TypeError(
                "row_values and column_values go with a function, and weights is an array."
            )
        _, weights = check_floats(z=(z, "b D"), weights=(weights, "b B"))
        if weights.shape[1] != batch_size(z, axis_name):
            raise ValueError(
                f"weights must be [b, B] with a column for each of the "
                f"{batch_size(z, axis_name)} rows of the global batch, got shape {weights.shape}."
            )
        logsumexp = _logsumexp(_weighted(matmul(q, gather_rows(k, axis_name).T), weights))
    counts = ~jnp.isneginf(logsumexp)
    zeros = jnp.zeros_like(logsumexp)
    return jnp.mean(jnp.where(counts, jnp.where(counts, logsumexp, zeros) - positives(q, k), zeros))


def check_edges(name: str, edges: Array, nodes: int) -> tuple[Array, Array]:
    """Sources and targets, int32 [E] each, of edges [2, E] among so many nodes.

    Raises:
      TypeError: edges is not an array of integers.
      ValueError: it has another shape, or an index is out of range.
    """
    if not hasattr(edges, "shape"):
        raise TypeError(f"{name} must be an array of integers, got {type(edges).__name__}.")
    if len(edges.shape) != 2 or edges.shape[0] != 2:
        raise ValueError(f"{name} must be [2, E], sources and targets, got shape {edges.shape}.")
    sources, targets = (
        check_ids(f"{name}[{side}]", edges[side], edges.shape[1], below=nodes) for side in (0, 1)
    )
    return sources, targets


def _weighted(products: Array, weights: Array) -> Array:
    """Logits of weighted pairs; the logarithm of a zero, whose gradient is NaN, is never taken."""
    weights = jnp.asarray(weights, products.dtype)
    counts = weights > 0
    return jnp.where(
        counts, products + jnp.log(jnp.where(counts, weights, jnp.ones_like(weights))), -jnp.inf
    )


def _logsumexp(logits: Array) -> Array:
    """Log-sum-exp of each row; -inf, without gradient, for one that is -inf throughout."""
    met = jnp.any(~jnp.isneginf(logits), axis=1, keepdims=True)
    found = jax.nn.logsumexp(jnp.where(met, logits, jnp.zeros_like(logits)), axis=1)
    return jnp.where(met[:, 0], found, -jnp.inf)


def _tile_for(values: tuple[Array, ...]) -> int:
    """Rows and columns of a tile whose values take no more memory than a tile of inner products."""
    width = max([math.prod(value.shape[1:]) for value in values], default=1)
    return max(TILE // math.isqrt(max(width, 1)), 1)


def _check_values(name: str, values: tuple[Array, ...], rows: int) -> None:
    """Raises unless every array has so many rows."""
    for index, value in enumerate(values):
        shape = getattr(value, "shape", None)
        if not shape or shape[0] != rows:
            raise ValueError(
                f"{name}[{index}] must be [{rows}, ...], one for each row, got shape {shape}."
            )
