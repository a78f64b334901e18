"""Losses of the spectrum of second moments: embeddings of full rank without whitening."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_floats,
    check_positive,
    check_share,
    check_views,
    gather_rows,
    positives,
    second_moment,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul
from jaxclr.losses.redundancy import inverse_norms

Array = jax.Array


def tico(
    q: Array,
    k: Array,
    covariance: Array,
    *,
    weight: float | Array = 8.0,
    momentum: float | Array = 0.9,
    axis_name: AxisName = None,
) -> Array:
    r"""Cosine distance of views plus the energy of queries along common directions (TiCo).

    .. math:: 1 - \frac1B \sum_i \hat q_i^\top \hat k_i
       + \frac\rho B \sum_i \hat q_i^\top C_t \hat q_i,
       \qquad C_t = \beta C_{t-1} + \frac{1 - \beta}{B} \sum_i \hat q_i \hat q_i^\top

    The energy is computed from D x D matrices, as the inner product of :math:`C_t` and the batch's
    own moment; its gradient reaches that moment in :math:`C_t` too, as in the public code. The
    authors publish none. Of the ports, lightly's is this loss, of the batch of each device unless
    it is asked to gather; its first version centered the rows of each view before they were
    normalized. sayannag's has no constant 1 in the value. Both set rho to 20, the paper to 8.

    Needs: targets, a running covariance.
    Cost: BD².
    Global batch: the second moment.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.tico(q, k, jnp.zeros((4, 4)))), 2)
    1.0

    Args:
      q: queries, embeddings of one view, [b, D], any float dtype; rows are normalized here.
      k: keys, embeddings of the other view, [b, D]; gradients reach them unless the caller stops
        them, as embeddings of a momentum encoder are.
      covariance: C of the step before [D, D], symmetric, zero in the first step, the same on every
        device; it receives no gradient. `tico_covariance` gives the next one.
      weight: rho; zero or more.
      momentum: beta, weight of the covariance before; 0 to 1.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or a hyper-parameter is not a number.
      ValueError: shapes do not fit, or a hyper-parameter is out of range.

    References:
      Zhu et al., TiCo: Transformation Invariance and Covariance Contrast for Self-Supervised Visual
      Representation Learning, 2022 (arXiv:2206.10698).
    """
    q, k, covariance = check_floats(q=(q, "b D"), k=(k, "b D"), covariance=(covariance, "D D"))
    check_positive("weight", weight, zero=True)
    check_share("momentum", momentum)
    q, k = unit_rows(q), unit_rows(k)
    moment = second_moment(q, axis_name=axis_name)
    running = momentum * jax.lax.stop_gradient(covariance) + (1 - momentum) * moment
    return 1 - jnp.mean(positives(q, k)) + weight * jnp.sum(running * moment)


def tico_covariance(
    q: Array, covariance: Array, *, momentum: float | Array = 0.9, axis_name: AxisName = None
) -> Array:
    r"""The running covariance after a step of `tico`: C_t of its equation.

    Needs: a running covariance; gives the next.
    Cost: BD².
    Global batch: the second moment.

    >>> q = jax.random.normal(jax.random.key(0), (8, 4))
    >>> losses.tico_covariance(q, jnp.zeros((4, 4))).shape
    (4, 4)

    Args:
      q: queries of the step, [b, D], any float dtype; rows are normalized here.
      covariance: C of the step before [D, D], the same on every device.
      momentum: beta; 0 to 1.
      axis_name: mapped axis over which the batch is spread; None if q is all of it.

    Returns:
      [D, D], the same on every device, without gradient.

    Raises:
      TypeError: an input is not an array of floats, or momentum is not a number.
      ValueError: shapes do not fit, or momentum is out of range.

    References:
      Zhu et al., arXiv:2206.10698.
    """
    q, covariance = check_floats(q=(q, "b D"), covariance=(covariance, "D D"))
    check_share("momentum", momentum)
    q, covariance = jax.lax.stop_gradient((unit_rows(q), covariance))
    return momentum * covariance + (1 - momentum) * second_moment(q, axis_name=axis_name)


def mmcr(views: Array | Sequence[Array], *, axis_name: AxisName = None) -> Array:
    r"""Negative nuclear norm of the images' mean embeddings (MMCR).

    .. math:: -\|C\|_* = -\sum_d \sigma_d(C), \qquad C_i = \frac1V \sum_v \hat z_{vi}

    over the global batch. It is a sum, which grows with the square root of B. The gradient at C is
    :math:`-U V^\top` of the nonzero singular values. C is not gathered: every device factors its
    rows as QR, and the singular values are those of the gathered factors R, at most D x D each.
    They are accurate to the rounding of the largest one; from a Gram matrix they would have half of
    the digits.

    With a momentum encoder, its embeddings are V more views without gradient: the official code's
    mean of two means. Its second term, the nuclear norm of the views of each image, has weight 0
    in its recipes and is left out here. It gathers without gradient, so that its gradient on
    several devices is this one's divided by their number.

    Needs: views.
    Cost: VBD + BD².
    Global batch: singular values.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.mmcr(views)), 2)
    -2.91

    Args:
      views: V views of the same images, [V, b, D] or a sequence of [b, D], any float dtype; at
        least two; rows are normalized here.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      The loss of the global batch, the same on every device.

    Raises:
      TypeError: views are not arrays of floats.
      ValueError: views are not matrices, differ in shape, or are fewer than two.

    References:
      Yerxa et al., Learning Efficient Coding of Natural Images with Maximum Manifold Capacity
      Representations, 2023 (arXiv:2303.03307).
    """
    norm: Array = _nuclear_norm(jnp.mean(unit_rows(check_views(views)), axis=0), axis_name)
    return -norm


def frossl(
    views: Array | Sequence[Array],
    *,
    invariance: float | Array = 1.0,
    axis_name: AxisName = None,
) -> Array:
    r"""Frobenius norms of the views' correlations and distances from the mean view (FroSSL).

    .. math:: \sum_v \left[ \log \frac{\|G_v\|_F^2}{(\operatorname{tr} G_v)^2}
       + \frac\lambda B \sum_i \|\tilde z_{vi} - \bar z_i\|^2 \right],
       \qquad G_v = \tilde Z_v^\top \tilde Z_v

    where dimensions have unit norm over the global batch, uncentered, and the mean is over the
    views. G is D x D; for fewer rows than dimensions :math:`\tilde Z \tilde Z^\top` has the same
    norm, and is smaller.

    This is solo-learn's form, by the authors. Their own repository, in versions, centers and
    standardizes dimensions first, or normalizes rows instead; lightly's invariance is V times as
    large. All take the batch of each device.

    Needs: views.
    Cost: VBD min(B, D).
    Global batch: norms of dimensions, correlations.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.frossl(views)), 2)
    -2.42

    Args:
      views: V views of the same images, [V, b, D] or a sequence of [b, D], any float dtype; at
        least two.
      invariance: lambda; zero or more.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or invariance is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, or invariance is
        negative.

    References:
      Skean et al., FroSSL: Frobenius Norm Minimization for Efficient Multiview Self-Supervised
      Learning, 2023 (arXiv:2310.02903).
    """
    views = check_views(views)
    check_positive("invariance", invariance, zero=True)
    squares = sum_over(jnp.sum(views**2, axis=1), axis_name)
    scaled = views * inverse_norms(squares)[:, None, :]
    distances = jnp.sum((scaled - jnp.mean(scaled, axis=0, keepdims=True)) ** 2, axis=(0, 2))
    loss = invariance * jnp.mean(distances)
    for view in scaled:
        loss += _log_frobenius(view, axis_name)
    return loss


def _log_frobenius(rows: Array, axis_name: AxisName) -> Array:
    """log |G|^2 / (tr G)^2 of G = rows^T rows over all devices; 0 for zeros."""
    count, width = batch_size(rows, axis_name), rows.shape[1]
    if count < width:
        gram = matmul(rows, gather_rows(rows, axis_name).T)
        total = sum_over(jnp.sum(gram**2), axis_name)
    else:
        total = jnp.sum(sum_over(matmul(rows.T, rows), axis_name) ** 2)
    trace = sum_over(jnp.sum(rows**2), axis_name)
    exists = total > 0
    known = lambda value: jnp.where(exists, value, jnp.ones_like(value))
    return jnp.log(known(total)) - 2 * jnp.log(known(trace))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _nuclear_norm(rows: Array, axis_name: AxisName) -> Array:
    """Sum of the singular values of the rows [b, D] of all devices."""
    return _forward(rows, axis_name)[0]


def _forward(rows: Array, axis_name: AxisName):
    factors = gather_rows(jnp.linalg.qr(rows, mode="r"), axis_name)
    _, values, directions = jnp.linalg.svd(factors, full_matrices=False)
    rounding = max(factors.shape) * jnp.finfo(values.dtype).eps * values[0]
    exists = values > rounding
    inverse = jnp.where(exists, 1 / jnp.where(exists, values, jnp.ones_like(values)), 0)
    return jnp.sum(values), (rows, matmul(directions.T * inverse[None, :], directions))


def _backward(axis_name: AxisName, saved, gradient: Array) -> tuple[Array]:
    rows, to_orthonormal = saved
    return (sum_over(gradient, axis_name) * matmul(rows, to_orthonormal),)


_nuclear_norm.defvjp(_forward, _backward)
