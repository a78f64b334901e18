"""Losses of embedded sequences of a user's actions."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_embeddings,
    gather_rows,
    positives,
    row_ids,
    row_max,
    sum_over,
)

Array = jax.Array


def contrast_regularizer(z1: Array, z2: Array, *, axis_name: AxisName = None) -> Array:
    r"""Hinges on positives above and negatives below the hardest negative (MCLRec).

    .. math:: \frac{1}{2B} \sum_{i=1}^{2B} \Big[ [p_i - \min(p_i, m_i)]_+ +
       \frac{1}{2B - 2} \sum_j [\max(p_i, m_i) - n_{ij}]_+ \Big], \qquad m_i = \max_j n_{ij}

    where the row i of Z = [Z_1; Z_2] has the inner products :math:`p_i` with its other view and
    :math:`n_{ij}` with the 2B - 2 rows of other sequences. Note that the first term pulls a
    positive down to its hardest negative.

    Nothing in the second brackets is negative, so their mean needs one sum of all rows; pairs are
    only looked through for the hardest negative: O(B^2 D) streamed, with a gradient of O(BD). It is
    linear in the inner products: to divide these by a temperature, divide the loss.

    Needs: negatives.
    Cost: B²D.
    Global batch: means over pairs.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.contrast_regularizer(z1, z2)), 2)
    3.61

    Args:
      z1: embeddings of one view of the sequences, [b, D], any float dtype; they are not normalized.
      z2: embeddings of the other view, [b, D].
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats.
      ValueError: z1 and z2 differ in shape or are not matrices, or the global batch has one
        sequence, thus no negatives.

    References:
      Qin et al., Meta-optimized Contrastive Learning for Sequential Recommendation, 2023
      (arXiv:2304.07763).
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    count = batch_size(z1, axis_name)
    if count < 2:
        raise ValueError(
            "the global batch must have at least 2 sequences, got 1, which has no negatives."
        )
    rows = jnp.concatenate([z1, z2])
    sequences = jnp.tile(row_ids(z1, axis_name), 2)
    found = row_max(lambda s: s, rows, rows, exclude=(sequences, sequences), axis_name=axis_name)
    hardest = positives(rows, gather_rows(rows, axis_name)[found.column])
    positive = positives(rows, jnp.roll(rows, z1.shape[0], axis=0))
    every = sum_over(jnp.sum(rows, axis=0, keepdims=True), axis_name)
    negatives = positives(rows, every) - positives(rows, rows) - positive
    return jnp.mean(2 * jnp.maximum(positive, hardest) - hardest - negatives / (2 * count - 2))
