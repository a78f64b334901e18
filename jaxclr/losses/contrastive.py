"""Losses that set positives against the other rows of the global batch."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    check_embeddings,
    check_positive,
    positives,
    row_logsumexp,
    self_logsumexp,
    unit_rows,
)

Array = jax.Array


def nt_xent(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.1,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each row's other view among all other rows of both views (SimCLR).

    .. math:: \frac{1}{2B} \sum_{i=1}^{2B} \left[ \log \sum_{j \ne i} e^{s_{ij}} - s_{i,p(i)} \right],
       \qquad s = \hat Z \hat Z^\top / \tau,\; Z = [Z_1; Z_2]

    The mean over the 2B rows: half of what the official TensorFlow code sums.

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalised here.
      z2: embeddings of the other view, [b, D].
      temperature: tau; positive.
      implementation: how row sums are formed: "dense", "streamed", "ring" or "auto", all exact; see
        `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the global batch.

    Raises:
      TypeError: z1 or z2 is no array of floats, or temperature no number.
      ValueError: z1 and z2 differ in shape or are no matrices, temperature is not positive, or there is no such implementation.

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020 (arXiv:2002.05709), eq. 1.
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("temperature", temperature)
    rows = unit_rows(jnp.concatenate([z1, z2])) / jnp.sqrt(jnp.asarray(temperature, z1.dtype))
    spread = self_logsumexp(rows, implementation=implementation, axis_name=axis_name)
    partners = jnp.roll(rows, z1.shape[0], axis=0)
    return jnp.mean(spread - positives(rows, partners))


def info_nce(
    q: Array,
    k: Array,
    *,
    temperature: float | Array = 1.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each query's own key among the keys of the global batch (InfoNCE).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right], \qquad A = \hat Q \hat K^\top / \tau

    MoCo v3's loss is 2 tau times this, summed over both directions.

    Args:
      q: queries, [b, D], any float dtype; rows are normalised here.
      k: keys, [b, D]; gradients reach them unless the caller stops them.
      temperature: tau; positive.
      implementation: how row sums are formed: "dense", "streamed", "ring" or "auto", all exact; see
        `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the global batch.

    Raises:
      TypeError: q or k is no array of floats, or temperature no number.
      ValueError: q and k differ in shape or are no matrices, temperature is not positive, or there is no such implementation.

    References:
      van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018 (arXiv:1807.03748), eq. 4;
      Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021 (arXiv:2104.02057), algorithm 1.
    """
    q, k = check_embeddings(q=q, k=k)
    check_positive("temperature", temperature)
    q, k = unit_rows(q) / temperature, unit_rows(k)
    spread = row_logsumexp(q, k, implementation=implementation, axis_name=axis_name)
    return jnp.mean(spread - positives(q, k))
