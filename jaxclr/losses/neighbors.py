"""Losses of nearest neighbors, in a queue or in the global batch."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_embeddings,
    check_floats,
    check_positive,
    gather_rows,
    row_ids,
    row_max,
    unit_rows,
)
from jaxclr.losses.contrastive import info_nce

Array = jax.Array


def nearest_neighbors(z: Array, queue: Array) -> Array:
    r"""The row of a queue that is nearest to each embedding, by cosine (NNCLR's support set).

    .. math:: NN(z_i) = \hat n_{k(i)}, \qquad k(i) = \arg\max_k \hat z_i \cdot \hat n_k

    The search forms a tile of cosines at a time. Of equal ones the first is taken.

    Needs: a queue; gives its rows.
    Cost: BKD.
    Global batch: nothing.

    >>> z, queue = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> losses.nearest_neighbors(z, queue).shape
    (8, 4)

    Args:
      z: embeddings, [b, D], any float dtype; they receive no gradient.
      queue: n, rows of earlier batches, [K, D], whole on every device; they receive no gradient.

    Returns:
      [b, D], of unit length and constant in the gradient.

    Raises:
      TypeError: z or queue is not an array of floats.
      ValueError: z or queue is not a matrix, or they differ in D.

    References:
      Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of
      Visual Representations, 2021 (arXiv:2104.14548), eq. 3.
    """
    z, queue = map(unit_rows, check_floats(z=(z, "b D"), queue=(queue, "K D")))
    queue = jax.lax.stop_gradient(queue)
    return queue[row_max(lambda cosines: cosines, z, queue).column]


def nnclr(
    z: Array,
    p: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.1,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each neighbor's prediction among those of the global batch (NNCLR).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right],
       \qquad A_{ij} = NN(z_i) \cdot \hat p_j / \tau

    One direction of two views, whose mean the paper's algorithm takes. No official code was found.
    solo-learn has the same loss with the predictions of each device as negatives; here they are
    those of the global batch. lightly replaces one view of NT-Xent by neighbors instead, so that
    predictions repel each other too.

    Needs: a queue, predictions.
    Cost: B(B + K)D.
    Global batch: row sums over all columns.

    >>> z, p, queue = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.nnclr(z, p, queue, temperature=0.2)), 2)
    3.28

    Args:
      z: embeddings of one view, [b, D], any float dtype; they receive no gradient.
      p: predictions of the other view, [b, D]; rows are normalized here.
      queue: the support set, [K, D], whole on every device; it receives no gradient.
      temperature: tau; positive.
      implementation: as of `info_nce`.
      axis_name: mapped axis over which the batch is spread; None if z and p are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: shapes do not fit, temperature is not positive, or implementation
        is unknown.

    References:
      Dwibedi et al., With a Little Help from My Friends: Nearest-Neighbor Contrastive Learning of
      Visual Representations, 2021 (arXiv:2104.14548), eq. 4 and algorithm 1.
    """
    z, p, queue = check_floats(z=(z, "b D"), p=(p, "b D"), queue=(queue, "K D"))
    return info_nce(
        nearest_neighbors(z, queue),
        p,
        temperature=temperature,
        implementation=implementation,
        axis_name=axis_name,
    )


def koleo(z: Array, *, eps: float | Array = 1e-8, axis_name: AxisName = None) -> Array:
    r"""Negative mean log distance of each row to its nearest other row (KoLeo).

    .. math:: -\frac{1}{2B} \sum_i \log \left( \|\hat z_i - \hat z_{n(i)}\|^2 + \epsilon^2 \right),
       \qquad n(i) = \arg\max_{j \ne i} \hat z_i \cdot \hat z_j

    The Kozachenko-Leonenko estimate of the entropy but for constants: it spreads rows. Both ends of
    a distance are moved. Neighbors are those of the global batch; in DINOv2's code those of each
    device. That code adds epsilon to each coordinate of a difference and to its norm, whose
    gradient at equal rows is of the order of 1 / epsilon; here equal rows have no gradient.

    Needs: one view.
    Cost: B²D.
    Global batch: nearest neighbors.

    >>> z = jax.random.normal(jax.random.key(0), (8, 4))
    >>> round(float(losses.koleo(z)), 2)
    0.27

    Args:
      z: embeddings, [b, D], any float dtype; rows are normalized here.
      eps: epsilon, a distance; positive.
      axis_name: mapped axis over which the batch is spread; None if z is all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z is not an array of floats, or eps is not a number.
      ValueError: z is not a matrix, the global batch is a single row, or eps is not positive.

    References:
      Sablayrolles et al., Spreading vectors for similarity search, 2018 (arXiv:1806.03198), eq. 2;
      Oquab et al., DINOv2, 2023 (arXiv:2304.07193).
    """
    (z,) = check_embeddings(z=z)
    check_positive("eps", eps)
    count = batch_size(z, axis_name)
    if count < 2:
        raise ValueError(f"koleo needs other rows: a batch of at least 2, got {count}.")
    rows, ids = unit_rows(z), row_ids(z, axis_name)
    nearest = row_max(lambda cosines: cosines, rows, rows, exclude=(ids, ids), axis_name=axis_name)
    difference = rows - gather_rows(rows, axis_name)[nearest.column]
    return -jnp.mean(jnp.log(jnp.sum(difference**2, axis=1) + eps**2)) / 2
