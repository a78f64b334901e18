"""First and second moments of the global batch, and rows whitened by them."""

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, batch_size, sum_over

Array = jax.Array


def moments(*views: Array, axis_name: AxisName = None) -> tuple[Array, Array]:
    r"""Mean and unbiased covariance of the rows of all views of the global batch.

    .. math:: \mu = \frac1n \sum_i z_i, \qquad \Sigma = \frac{1}{n - 1} \sum_i
       (z_i - \mu)(z_i - \mu)^\top

    >>> mean, covariance = jaxclr.affinity.moments(jnp.eye(4), jnp.eye(4))
    >>> mean.shape, covariance.shape
    ((1, 4), (4, 4))

    Args:
      *views: [b, D] each; n counts the rows of all of them on all devices.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      mean [1, D] and covariance [D, D], the same on every device.
    """
    rows = jnp.concatenate(views)
    count = batch_size(rows, axis_name)
    mean = sum_over(jnp.sum(rows, axis=0, keepdims=True), axis_name) / count
    centered = rows - mean
    scatter = jnp.matmul(centered.T, centered, precision=jax.lax.Precision.HIGHEST)
    return mean, sum_over(scatter, axis_name) / max(count - 1, 1)


def second_moment(*views: Array, axis_name: AxisName = None) -> Array:
    r"""Mean of :math:`z_i z_i^\top` over the rows of all views of the global batch, uncentered.

    Args:
      *views: [b, D] each.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      [D, D], the same on every device.
    """
    rows = jnp.concatenate(views)
    gram = jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)
    return sum_over(gram, axis_name) / batch_size(rows, axis_name)


def whiten(*views: Array, mean: Array, covariance: Array, eps: float | Array) -> tuple[Array, ...]:
    r"""Rows :math:`L^{-1}(z - \mu)`, where :math:`L L^\top = \Sigma + \epsilon I` (Cholesky).

    Inner products of rows whitened alike are
    :math:`(z - \mu)^\top (\Sigma + \epsilon I)^{-1} (z' - \mu)`, which any other square root of the
    inverse (ZCA, PCA) gives too. O(BD^2 + D^3).

    Args:
      *views: [b, D] each.
      mean: [1, D].
      covariance: [D, D], symmetric and positive semi-definite.
      eps: added to its diagonal; positive.

    Returns:
      A whitened [b, D] for each view.
    """
    regularized = covariance + eps * jnp.eye(covariance.shape[0], dtype=covariance.dtype)
    factor = jnp.linalg.cholesky(regularized)
    return tuple(
        jax.scipy.linalg.solve_triangular(factor, (rows - mean).T, lower=True).T for rows in views
    )
