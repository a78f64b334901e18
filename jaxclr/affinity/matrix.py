"""The dense affinity matrix, for plots."""

import jax

from jaxclr.affinity.checks import check_embeddings, check_positive
from jaxclr.affinity.collectives import AxisName, gather_rows
from jaxclr.affinity.rows import unit_rows
from jaxclr.affinity.tiles import matmul
from jaxclr.affinity.whitening import moments, whiten

Array = jax.Array


def matrix(
    q: Array,
    k: Array,
    *,
    temperature: float | Array = 1.0,
    whitened: bool = False,
    eps: float | Array = 0.01,
    axis_name: AxisName = None,
) -> Array:
    r"""The dense affinity matrix of a global batch, for plots. No loss forms it.

    .. math:: A = \hat Q \hat K^\top / \tau \quad\text{or}\quad
       A = (\hat Q - \mu)(\Sigma + \epsilon I)^{-1}(\hat K - \mu)^\top / \tau

    >>> jaxclr.affinity.matrix(jnp.eye(2), jnp.eye(2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      whitened: whether to whiten by the mean and covariance of the rows of both views.
      eps: added to the diagonal of that covariance; positive.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      [B, B], the same on every device. It takes 4 B^2 bytes.

    Raises:
      TypeError: q or k is not an array of floats, or a hyper-parameter is not a number.
      ValueError: q and k differ in shape or are not matrices, or a hyper-parameter is out of range.

    References:
      Li et al., A Unified Framework for Contrastive Learning from a Perspective of Affinity Matrix,
      2022 (arXiv:2211.14516).
    """
    q, k = check_embeddings(q=q, k=k)
    check_positive("temperature", temperature)
    check_positive("eps", eps)
    q, k = unit_rows(q), unit_rows(k)
    if whitened:
        mean, covariance = moments(q, k, axis_name=axis_name)
        q, k = whiten(q, k, mean=mean, covariance=covariance, eps=eps)
    return matmul(gather_rows(q, axis_name) / temperature, gather_rows(k, axis_name).T)
