"""Signs of collapse: how many directions the features use, and how far they spread."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxclr.evaluation.checks import check_features


def effective_rank(z: Array) -> Array:
    r"""Exponential of the entropy of the spectrum of the centred covariance of unit rows.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \quad p_k = \lambda_k \Big/ \sum_j \lambda_j,
              \quad \lambda = \operatorname{eig}\,\operatorname{cov}(z_i / |z_i|)

    From 1 (features on a line) to min(D, n - 1). Rounding noise around a single point has a high
    rank too: read it beside `total_variance`. It is not `rank_me`, which does not centre.

    Args:
      z: features, [n, D].

    Returns:
      A float32 scalar; 1 if there is no variance at all.

    Raises:
      ValueError: z is not a matrix of rows.

    References:
      Roy and Vetterli, The effective rank: a measure of effective dimensionality, 2007.
    """
    return _exp_entropy(_singular_values(_centred_unit_rows(z)) ** 2, floor=0.0)


def total_variance(z: Array) -> Array:
    r"""Trace of the covariance of unit rows: 0 for a single point, at most 1.

    .. math:: \frac{1}{n} \sum_i |u_i - \bar u|^2, \quad u_i = z_i / |z_i|

    Args:
      z: features, [n, D].

    Returns:
      A float32 scalar.

    Raises:
      ValueError: z is not a matrix of rows.
    """
    return jnp.mean(jnp.sum(_centred_unit_rows(z) ** 2, axis=1))


def rank_me(z: Array, *, eps: float = 1e-7) -> Array:
    r"""RankMe: exponential of the entropy of the singular values of the features as they are.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \quad
              p_k = \sigma_k(Z) \Big/ \sum_j \sigma_j(Z) + \epsilon

    Neither centred nor normalised.

    Args:
      z: features, [n, D]; the paper takes 25,600 rows of projector output.
      eps: added to each p.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: z is not a matrix of rows.

    References:
      Garrido et al., RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
      Representations by Their Rank, 2023 (arXiv:2210.02885).
    """
    check_features("z", z)
    return _exp_entropy(_singular_values(z.astype(jnp.float32)), floor=eps)


def _centred_unit_rows(z: Array) -> Array:
    check_features("z", z)
    z = z.astype(jnp.float32)
    z = z / jnp.maximum(jnp.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return z - jnp.mean(z, axis=0, keepdims=True)


def _singular_values(x: Array) -> Array:
    """Of x itself: roots of its Gram matrix's eigenvalues are noise below 3e-4 in float32."""
    if x.shape[0] > x.shape[1]:
        x = jnp.linalg.qr(x, mode="r")  # D x D, with the same singular values
    return jnp.linalg.svd(x, compute_uv=False)


def _exp_entropy(values: Array, *, floor: float) -> Array:
    """Of values over their sum, plus the floor; all zeros count as one value."""
    share = values / jnp.maximum(jnp.sum(values), jnp.finfo(values.dtype).tiny) + floor
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))
