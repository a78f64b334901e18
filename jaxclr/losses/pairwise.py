"""Losses that sum a function of each pair of rows."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_batch,
    check_embeddings,
    check_floats,
    check_positive,
    gather_rows,
    pair_sum,
    positives,
    row_ids,
    self_logsumexp,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul

Array = jax.Array

_ACTIVE = 1e-16  # an active hinge exceeds this, as in the official code of Trip-ROMA


def mio(
    z1: Array,
    z2: Array,
    *,
    temperature_positive: float | Array = 0.5,
    temperature_negative: float | Array = 0.5,
    mse_weight: float | Array = 0.0,
    bound: bool = False,
    axis_name: AxisName = None,
) -> Array:
    r"""Binary cross-entropy of positives against all negatives (MIO).

    .. math:: \frac{1}{B} \sum_i \operatorname{softplus}(-p_i / \tau^+)
       + \frac{1}{4B(B-1)} \sum_{i,n} \operatorname{softplus}(n_{in} / \tau^-)
       + \frac{\lambda}{BD} \| \hat Z_1 - \hat Z_2 \|^2

    where p are the cosines of positives and n those of each of the 2B rows with the rows of other
    images. The form of the first version of the paper and of the official code.

    bound: without the repulsion of positives, and with an upper bound of that of negatives,

    .. math:: -\frac{1}{B} \sum_i p_i / \tau^+ + \log \Big( 1
       + \frac{1}{4B(B-1)} \sum_{i,n} e^{n_{in} / \tau^-} \Big)
       + \frac{\lambda}{BD} \| \hat Z_1 - \hat Z_2 \|^2

    A reconstruction: the later versions of the paper are known by this property only. The negatives
    are those of the global batch, where the official code takes those of each device.

    Needs: negatives.
    Cost: B²D.
    Global batch: two means over pairs.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.mio(z1, z2)), 2)
    1.36

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other view, [b, D].
      temperature_positive: tau+; positive.
      temperature_negative: tau-; positive.
      mse_weight: lambda, zero or more; the official code's class has 1, its training 0.
      bound: which form.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or a temperature or mse_weight is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, the global batch is a single image,
        or a temperature or mse_weight is out of range.

    References:
      Manna et al., MIO: Mutual Information Optimization using Self-Supervised Binary Contrastive
      Learning, 2021 (arXiv:2111.12664).
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("temperature_positive", temperature_positive)
    check_positive("temperature_negative", temperature_negative)
    check_positive("mse_weight", mse_weight, zero=True)
    images = batch_size(z1, axis_name)
    check_batch(images)
    z1, z2 = unit_rows(z1), unit_rows(z2)
    closeness = positives(z1, z2) / temperature_positive
    root = jnp.sqrt(jnp.asarray(temperature_negative, z1.dtype))
    rows = jnp.concatenate([z1, z2]) / root
    ids = jnp.tile(row_ids(z1, axis_name), 2)
    negatives = 4.0 * images * (images - 1)  # a float: beyond 2^31 for 2^15 images
    if bound:
        attraction = -jnp.mean(closeness)
        sums = self_logsumexp(rows, exclude=ids, axis_name=axis_name)
        total = jax.nn.logsumexp(gather_rows(sums, axis_name))
        repulsion = jax.nn.softplus(total - math.log(negatives))
    else:
        attraction = jnp.mean(jax.nn.softplus(-closeness))
        repulsion = _sum_of_symmetric(jax.nn.softplus, rows, ids, axis_name) / negatives
    return attraction + repulsion + mse_weight * jnp.mean((z1 - z2) ** 2)


def triplet(
    z1: Array,
    z2: Array,
    projection: Array | None = None,
    *,
    margin: float | Array = 1.0,
    pairwise_weight: float | Array = 8.0,
    pairwise_temperature: float | Array = 0.5,
    axis_name: AxisName = None,
) -> Array:
    r"""Hinge of all triplets and cross-entropy of their pairs (Trip, or Trip-ROMA if projected).

    .. math:: \frac{1}{|\mathcal A|} \sum_{(a,n) \in \mathcal A} (\text{margin} + s_{an} - s_{ap})
       + \frac{\lambda}{4B(B-1)} \sum_{a,n} \operatorname{softplus}((s_{an} - s_{ap}) / \tau),
       \qquad s = \hat Z \hat Z^\top,\; Z = [Z_1; Z_2] R

    Anchors a are the 2B rows, p the other view of the anchor's image, n the rows of other images.
    The hinge is a mean over the active triplets A, those of more than 1e-16, and zero where there
    is none (NaN in the official code). The triplets are those of the global batch, where the
    official code takes those of each device.

    Needs: negatives, a random projection.
    Cost: B²D.
    Global batch: means over pairs.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> projection = jax.random.normal(jax.random.key(1), (4, 4))
    >>> round(float(losses.triplet(z1, z2, projection)), 2)
    7.98

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalized after the mapping.
      z2: embeddings of the other view, [b, D].
      projection: R, [D, D'], the same on every device, normal draws that are renewed every few
        epochs; it receives no gradient. None for no mapping.
      margin: zero or more.
      pairwise_weight: lambda; zero or more.
      pairwise_temperature: tau; positive.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      The loss of the global batch, the same on every device.

    Raises:
      TypeError: an input is not an array of floats, or a hyper-parameter is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, projection has not D rows, the
        global batch is a single image, or a hyper-parameter is out of range.

    References:
      Li et al., Trip-ROMA: Self-Supervised Learning with Triplets and Random Mappings, 2021
      (arXiv:2107.10419).
    """
    check_positive("margin", margin, zero=True)
    check_positive("pairwise_weight", pairwise_weight, zero=True)
    check_positive("pairwise_temperature", pairwise_temperature)
    if projection is None:
        z1, z2 = check_embeddings(z1=z1, z2=z2)
    else:
        named = {"z1": (z1, "b D"), "z2": (z2, "b D"), "projection": (projection, "D E")}
        z1, z2, projection = check_floats(**named)
        projection = jax.lax.stop_gradient(projection)
        z1, z2 = matmul(z1, projection), matmul(z2, projection)
    images = batch_size(z1, axis_name)
    check_batch(images)
    rows = unit_rows(jnp.concatenate([z1, z2]))
    closeness = positives(rows, jnp.roll(rows, len(z1), axis=0))

    def of_a_triplet(products: Array, closeness: Array) -> tuple[Array, Array, Array]:
        excess = products - closeness
        hinge = margin + excess
        active = hinge > _ACTIVE
        return (
            jnp.where(active, hinge, jnp.zeros_like(hinge)),
            active.astype(hinge.dtype),
            jax.nn.softplus(excess / pairwise_temperature),
        )

    ids = jnp.tile(row_ids(z1, axis_name), 2)
    sums = pair_sum(
        of_a_triplet, rows, rows, row_values=(closeness,), exclude=(ids, ids), axis_name=axis_name
    )
    hinges, active, pairwise = sum_over(sums, axis_name)
    hinge = hinges / jnp.maximum(active, jnp.ones_like(active))
    triplets = 4.0 * images * (images - 1)
    return hinge + pairwise_weight * pairwise / triplets


def _sum_of_symmetric(
    f: Callable[[Array], Array], rows: Array, ids: Array, axis_name: AxisName
) -> Array:
    """Sum of f of the inner products of all pairs of rows of different ids.

    The matrix is symmetric: with constant columns the gradient is half of the full one.
    """
    constant = jax.lax.stop_gradient(rows)
    total = pair_sum(f, rows, constant, exclude=(ids, ids), axis_name=axis_name)
    total = sum_over(total, axis_name)
    return 2 * total - jax.lax.stop_gradient(total)
