"""A lower bound on how well a graph encoder separates each node, whichever edges are dropped."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_batch,
    check_floats,
    check_mask,
    check_share,
    gather_rows,
    row_ids,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul
from jaxclr.losses.graphs import check_edges

Array = jax.Array


def node_compactness(
    z: Array,
    features: Array,
    w1: Array,
    b1: Array,
    w2: Array,
    b2: Array,
    edges: Array,
    kept: Array,
    *,
    drop: float | Array,
    slope: float | Array = 0.0,
    axis_name: AxisName = None,
) -> Array:
    r"""Binary cross-entropy of a bound on the margin of positives over negatives (POT).

    .. math:: \frac1n \sum_i \log(1 + e^{-m_i}), \qquad m_i \le
       \Big\langle \hat z_i - \frac{1}{n - 1} \sum_{j \ne i} \hat z_j,\; h_i \Big\rangle,
       \qquad h = \phi(\hat A\, \phi(\hat A X W_1 + b_1)\, W_2 + b_2)

    h are embeddings of one view of the graph, z those of the other, and the bound m is to hold for
    any way to drop up to a share of the edges of each node. It comes from linear bounds on the
    activation (CROWN) between bounds on its inputs, entry by entry of the normalized adjacency. The
    regularized objective is (1 - kappa) InfoNCE + kappa / 2 times this loss of both views, kappa
    0.2 to 0.5.

    As in the official code the bound is not strict: the second layer's inputs are bounded with the
    undropped first layer, and the linear bound of each neighbor stands for that of the node itself
    within its neighborhood. The official code forms n x n adjacency matrices, and may take a subset
    of nodes; this one sums over edges, O(nFH + nHD + EH). There a learned slope is constant in the
    bound; here it has a gradient if it is given as an array.

    Needs: node embeddings, features, weights of two graph convolutions, edges.
    Cost: BFH + BHD + EH.
    Global batch: all nodes.

    >>> z, features = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> weights = (jnp.eye(4), jnp.zeros(4), jnp.eye(4), jnp.zeros(4))
    >>> ring = jnp.stack([jnp.arange(8), (jnp.arange(8) + 1) % 8])
    >>> edges = jnp.concatenate([ring, ring[::-1]], axis=1)
    >>> kept = jnp.ones(16, bool)
    >>> round(float(losses.node_compactness(z, features, *weights, edges, kept, drop=0.2)), 2)
    0.64

    Args:
      z: node embeddings of the other view, [n, D], any float dtype; rows are normalized here.
      features: X, [n, F].
      w1: weights of the first convolution, [F, H].
      b1: its bias, [H].
      w2: weights of the second convolution, [H, D].
      b2: its bias, [D].
      edges: [2, E] integers, source and target of each directed edge of the graph, as indices among
        the nodes of all devices, each edge both ways and without self-loops, which are added here.
        All edges, the same on every device.
      kept: bool [E], the edges of this view.
      drop: share of its edges that each node may lose, 0 to 1; a node keeps at least one.
      slope: slope of the activation for negative inputs, 0 to 1: 0 of ReLU, or a learned one.
      axis_name: mapped axis over which the nodes are spread; None if these are all of them.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the whole graph.

    Raises:
      TypeError: an input is not an array of its type, or a hyper-parameter is not a number.
      ValueError: shapes do not fit, the graph is a single node, or a hyper-parameter is out of
        range.

    References:
      Yu et al., Provable Training for Graph Contrastive Learning, 2023 (arXiv:2309.13944).
    """
    z, features, w1, b1, w2, b2 = check_floats(
        z=(z, "n D"),
        features=(features, "n F"),
        w1=(w1, "F H"),
        b1=(b1, "H"),
        w2=(w2, "H D"),
        b2=(b2, "D"),
    )
    b1, b2 = b1[None, :], b2[None, :]
    check_share("drop", drop)
    check_share("slope", slope)
    nodes = batch_size(z, axis_name)
    check_batch(nodes)
    sources, targets = check_edges("edges", edges, nodes)
    kept = check_mask("kept", kept, sources.shape[0])

    own = row_ids(z, axis_name)

    def propagate(degrees: Array, rows: Array, weights: Array | None = None) -> Array:
        """The adjacency with self-loops, normalized by degrees [n], times the rows of all nodes."""
        roots = jax.lax.rsqrt(degrees)[:, None]
        scaled = roots[own] * rows
        messages = gather_rows(scaled, axis_name)[sources]
        if weights is not None:
            messages = weights[:, None] * messages
        return roots[own] * (jax.ops.segment_sum(messages, targets, nodes)[own] + scaled)

    count = lambda weights: 1 + jax.ops.segment_sum(weights, targets, nodes)
    in_view = jnp.asarray(kept, z.dtype)
    degrees, view_degrees = count(jnp.ones_like(in_view)), count(in_view)
    losable = jnp.minimum(jnp.maximum(degrees - 2, 0), jnp.round(drop * (degrees - 1)))

    def bounds(rows: Array, bias: Array) -> tuple[Array, Array]:
        """Least and largest input of an activation; edges may vanish, but not self-loops."""
        kept_least = rows / degrees[own][:, None]
        center = (propagate(degrees - losable, rows) + kept_least) / 2 + bias
        radius = (propagate(degrees - losable, jnp.abs(rows)) - jnp.abs(kept_least)) / 2
        return center - radius, center + radius

    x = matmul(features, w1)
    inputs = propagate(degrees, x) + b1
    hidden = jnp.where(inputs > 0, inputs, slope * inputs)
    first, second = bounds(x, b1), bounds(matmul(hidden, w2), b2)

    z = unit_rows(z)
    others = (sum_over(jnp.sum(z, axis=0, keepdims=True), axis_name) - z) / (nodes - 1)
    back, constant2 = _bounded_below(z - others, second, b2, slope)
    back, constant1 = _bounded_below(matmul(back, w2.T), first, b1, slope)
    scores = jnp.sum(features * matmul(back, w1.T), axis=1, keepdims=True)
    for constant in (constant1, constant2):
        scores = propagate(view_degrees, scores, in_view) + constant
    return jnp.mean(jax.nn.softplus(-scores))


def _bounded_below(
    weights: Array, bounds: tuple[Array, Array], bias: Array, slope: float | Array
) -> tuple[Array, Array]:
    """Weights [b, H] of activations in terms of their inputs without bias, and the constant [b, 1].

    Between its bounds an activation lies between two parallel lines. A positive weight takes the
    lower line, which passes through 0, and a negative one the upper line.
    """
    least, largest = bounds
    bends = (least < 0) & (largest > 0)
    safe = lambda value: jnp.where(bends, value, jnp.ones_like(value))
    rise = safe(largest - slope * least)
    line = jnp.where(bends, rise / safe(largest - least), jnp.where(largest > 0, 1.0, slope))
    shift = jnp.where(bends & (weights < 0), (slope - 1) * largest * least / rise, 0.0)
    inner = jnp.asarray(line, weights.dtype) * weights
    return inner, jnp.sum(inner * (shift + bias), axis=1, keepdims=True)
