"""Losses of two towers, such as images and texts, with temperatures that may be trained."""

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    check_embeddings,
    check_finite,
    check_positive,
    contrast,
    cross_logsumexp,
    positives,
    row_ids,
    row_softplus,
    unit_rows,
)

Array = jax.Array


def clip(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.07,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of the rows and of the columns of the affinity matrix (CLIP).

    .. math:: \frac{1}{2B} \sum_i \left[ \log \sum_j e^{A_{ij}} + \log \sum_j e^{A_{ji}}
       - 2 A_{ii} \right], \qquad A = \hat Z_1 \hat Z_2^\top / \tau

    `info_nce` in both directions, in one pass over the matrix. CLIP trains the logarithm of
    :math:`1 / \tau` from log(1 / 0.07) and bounds :math:`1 / \tau` by 100: pass it as an array, and
    the gradient reaches it. OpenCLIP also keeps it from falling below 1. Its `ClipLoss` takes unit
    rows; the columns that it gathers from other devices have a gradient only with
    `gather_with_grad`, here always.

    Needs: negatives.
    Cost: B²D.
    Global batch: sums over all rows and columns.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.clip(z1, z2, temperature=0.2)), 2)
    2.85

    Args:
      z1: embeddings of one view or modality, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other, [b, D].
      temperature: tau; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or temperature is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, temperature is not positive, or
        implementation is unknown.

    References:
      Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021
      (arXiv:2103.00020), figure 3.
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("temperature", temperature)
    rows, columns, ids = unit_rows(z1) / temperature, unit_rows(z2), row_ids(z1, axis_name)
    of_rows, of_columns = cross_logsumexp(
        rows, columns, exclude=(ids, ids), implementation=implementation, axis_name=axis_name
    )
    logits = positives(rows, columns)
    return jnp.mean(contrast(logits, of_rows) + contrast(logits, of_columns)) / 2


def siglip(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.1,
    bias: float | Array = -10.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Logistic loss of every pair: is it one of image and its own text (SigLIP).

    .. math:: \frac1B \sum_i \Big[ \log(1 + e^{-A_{ii}}) + \sum_{j \ne i} \log(1 + e^{A_{ij}})
       \Big], \qquad A = \hat Z_1 \hat Z_2^\top / \tau + \beta

    The sum over all pairs divided by the batch, not by the number of pairs, as in big_vision, which
    forms the matrix, and in OpenCLIP. Both train :math:`\log(1 / \tau)` from log(10) and the bias
    from -10: pass them as arrays, and gradients reach them. OpenCLIP keeps :math:`1 / \tau` from 1
    to 100 as in its CLIP; big_vision and the paper do not.

    Needs: negatives.
    Cost: B²D.
    Global batch: row sums over all columns.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.siglip(z1, z2, temperature=0.2)), 2)
    8.83

    Args:
      z1: embeddings of one view or modality, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other, [b, D].
      temperature: tau; positive.
      bias: beta, of any sign; a negative one makes the many negatives cheap at first.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or a hyper-parameter is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, temperature is not positive, bias
        is not finite, or implementation is unknown.

    References:
      Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023 (arXiv:2303.15343), algorithm
      1.
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("temperature", temperature)
    check_finite("bias", bias)
    rows, columns, ids = unit_rows(z1) / temperature, unit_rows(z2), row_ids(z1, axis_name)
    bias = jnp.broadcast_to(jnp.asarray(bias, z1.dtype), (len(z1),))
    negatives = row_softplus(
        rows,
        columns,
        exclude=(ids, ids),
        column_bias=bias,
        implementation=implementation,
        axis_name=axis_name,
    )
    return jnp.mean(jax.nn.softplus(-positives(rows, columns) - bias) + negatives)
