"""Alignment of positives and uniformity of all rows on the sphere."""

import math

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_batch,
    check_embeddings,
    check_positive,
    gather_rows,
    self_logsumexp,
    unit_rows,
)

Array = jax.Array


def alignment(
    z1: Array, z2: Array, *, alpha: float | Array = 2.0, axis_name: AxisName = None
) -> Array:
    r"""Mean distance of positives, to a power.

    .. math:: \frac1B \sum_i \| \hat z_{1i} - \hat z_{2i} \|^\alpha

    Positives that coincide receive no gradient.

    Needs: two views.
    Cost: BD.
    Global batch: nothing.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.alignment(z1, z2)), 2)
    1.53

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other view, [b, D].
      alpha: the power; positive.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or alpha is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, or alpha is not positive.

    References:
      Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, 2020 (arXiv:2005.10242), section 4.1.
    """
    del axis_name  # rows are independent
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("alpha", alpha)
    squared = jnp.sum((unit_rows(z1) - unit_rows(z2)) ** 2, axis=1)
    apart = squared > 0
    powers = jnp.where(apart, squared, jnp.ones_like(squared)) ** (alpha / 2)
    return jnp.mean(jnp.where(apart, powers, jnp.zeros_like(powers)))


def uniformity(
    z: Array,
    *,
    t: float | Array = 2.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Logarithm of the mean Gaussian potential of all pairs of rows.

    .. math:: \log \frac{1}{B(B-1)} \sum_{i \ne j} e^{-t \| \hat z_i - \hat z_j \|^2}

    The two-view loss of the paper is alignment(z1, z2) + (uniformity(z1) + uniformity(z2)) / 2. The
    pairs are those of the global batch, where the official code takes those of each device.

    Needs: one view.
    Cost: B²D.
    Global batch: one log-mean-exp over pairs.

    >>> z = jax.random.normal(jax.random.key(0), (8, 4))
    >>> round(float(losses.uniformity(z)), 2)
    -2.86

    Args:
      z: embeddings, [b, D], any float dtype; rows are normalized here.
      t: of the potential; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if z is all of it.

    Returns:
      The loss of the global batch, the same on every device.

    Raises:
      TypeError: z is not an array of floats, or t is not a number.
      ValueError: z is not a matrix, the global batch is a single row, t is not positive, or
        implementation is unknown.

    References:
      Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, 2020 (arXiv:2005.10242), section 4.1.
    """
    (z,) = check_embeddings(z=z)
    check_positive("t", t)
    count = batch_size(z, axis_name)
    check_batch(count)
    twice = jnp.asarray(2 * t, z.dtype)
    # -t |x - y|^2 = 2t <x, y> - 2t between unit rows
    potentials = self_logsumexp(
        unit_rows(z) * jnp.sqrt(twice), implementation=implementation, axis_name=axis_name
    )
    total = jax.nn.logsumexp(gather_rows(potentials, axis_name))
    return total - twice - math.log(count * (count - 1))
