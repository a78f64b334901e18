"""Feature transformation (FT): harder positives and more varied negatives of a queue.

The paper's loss, in which the extrapolated query meets both, and nothing is normalized again:

    q, k = extrapolate_positives(q, k, 1 + jax.random.beta(key_of_lam, 2.0, 2.0))
    negatives = interpolate_negatives(queue, jax.random.beta(key_of_mix, 1.6, 1.6), permutation)
    loss = queue_cross_entropy(q, k, negatives, temperature=0.2, axis_name=axis_name)

One lam of each kind for a batch, the same on every device; the queue goes on to hold keys as they
were. After Zhu et al., Improving Contrastive Learning by Visualizing Feature Transformation, 2021
(arXiv:2108.02982).
"""

import numbers

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    check_embeddings,
    check_ids,
    check_permutations,
    check_positive,
    unit_rows,
)

Array = jax.Array


def extrapolate_positives(q: Array, k: Array, lam: float | Array) -> tuple[Array, Array]:
    r"""Unit queries and keys moved away from each other, along the line through both.

    .. math:: \lambda \hat q + (1 - \lambda) \operatorname{sg} \hat k,
       \qquad \lambda \operatorname{sg} \hat k + (1 - \lambda) \hat q

    Their inner product is that of the unit rows, s, less :math:`2 \lambda (\lambda - 1)(1 - s)`.
    For `queue_cross_entropy`.

    Needs: a transform, no loss.
    Cost: BD.
    Global batch: nothing.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> further_q, further_k = losses.extrapolate_positives(q, k, 1.5)
    >>> further_q.shape
    (8, 4)

    Args:
      q: queries, [b, D], any float dtype; rows are normalized here, and the results are not.
      k: keys, [b, D]; they receive no gradient.
      lam: lambda, at least 1; the paper draws 1 + Beta(2, 2) for each batch.

    Returns:
      Queries and keys, [b, D] each, float32 or float64; gradients reach q through both.

    Raises:
      TypeError: q or k is not an array of floats, or lam is not a number.
      ValueError: q and k differ in shape or are not matrices, or lam is less than 1.

    References:
      Zhu et al., arXiv:2108.02982, positive extrapolation.
    """
    q, k = check_embeddings(q=q, k=k)
    _check_lam(lam, 1, None)
    q, k = unit_rows(q), unit_rows(jax.lax.stop_gradient(k))
    lam = jnp.asarray(lam, q.dtype)
    return lam * q + (1 - lam) * k, lam * k + (1 - lam) * q


def interpolate_negatives(queue: Array, lam: float | Array, permutation: Array) -> Array:
    r"""Each unit row of a queue mixed with another of its rows.

    .. math:: \lambda \hat n_i + (1 - \lambda) \hat n_{\pi(i)}

    Needs: a transform, no loss.
    Cost: KD.
    Global batch: nothing.

    >>> queue = jax.random.normal(jax.random.key(0), (8, 4))
    >>> losses.interpolate_negatives(queue, 0.5, jnp.arange(8)[::-1]).shape
    (8, 4)

    Args:
      queue: [K, D], any float dtype; rows are normalized here, and the result is not. It receives
        no gradient.
      lam: lambda, from 0 to 1; the paper draws Beta(1.6, 1.6) for each batch.
      permutation: pi, [K], a permutation of 0 ... K - 1; the same on every device.

    Returns:
      [K, D], float32 or float64.

    Raises:
      TypeError: queue is not an array of floats, permutation none of integers, or lam is not a
        number.
      ValueError: queue is not a matrix, permutation is none or not of its rows, or lam is out of
        range.

    References:
      Zhu et al., arXiv:2108.02982, negative interpolation.
    """
    (queue,) = check_embeddings(queue=queue)
    _check_lam(lam, 0, 1)
    rows = queue.shape[0]
    check_ids("permutation", permutation, rows, below=rows)
    (permutation,) = check_permutations("permutation", permutation[None], rows)
    queue = unit_rows(jax.lax.stop_gradient(queue))
    lam = jnp.asarray(lam, queue.dtype)
    return lam * queue + (1 - lam) * queue[permutation]


def _check_lam(lam: float | Array, least: int, most: int | None) -> None:
    check_positive("lam", lam, zero=True)
    if isinstance(lam, numbers.Real) and (lam < least or (most is not None and lam > most)):
        wanted = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"lam must be {wanted}, got {lam}.")
