"""Losses of second moments of the global batch: variance, covariance, whitening."""

import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_count,
    check_embeddings,
    check_floats,
    check_permutations,
    check_positive,
    check_share,
    check_views,
    gather_rows,
    moments,
    positives,
    row_ids,
    second_moment,
    sum_over,
    unit_rows,
    whiten,
)
from jaxclr.affinity.tiles import matmul

Array = jax.Array

_VARIANCE_FLOOR = 1e-4  # under VICReg's root
_STANDARDIZING_EPS = 1e-5  # batch normalization's
_LEAST_SQUARE = 1e-24  # of the norm of a dimension over the batch, by which it is divided


def vicreg(
    z1: Array,
    z2: Array,
    *,
    invariance: float | Array = 25.0,
    variance: float | Array = 25.0,
    covariance: float | Array = 1.0,
    axis_name: AxisName = None,
) -> Array:
    r"""Distance of views, hinges on each dimension's deviation, squared covariances (VICReg).

    .. math:: \frac{\lambda}{BD} \sum_i \|z_{1i} - z_{2i}\|^2
       + \frac12 \sum_{Z \in \{Z_1, Z_2\}} \left[
       \frac{\mu}{D} \sum_d \max(0, 1 - \sigma_d)
       + \frac{2\nu}{D} \sum_{d \ne e} \Sigma_{de}^2 \right],
       \qquad \sigma_d = \sqrt{\Sigma_{dd} + 10^{-4}}

    with the unbiased covariance of each view of the global batch. Embeddings are taken as they are.

    Needs: two views.
    Cost: BD².
    Global batch: means and covariances.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.vicreg(z1, z2)), 2)
    41.42

    Args:
      z1: embeddings of one view, [b, D], any float dtype.
      z2: embeddings of the other view, [b, D].
      invariance: lambda; zero or more.
      variance: mu; zero or more.
      covariance: nu; zero or more.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or a hyper-parameter is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, or a hyper-parameter is negative.

    References:
      Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
      Learning, 2021 (arXiv:2105.04906), eq. 1-6; variance halved and covariance not, as in the
      official code.
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    for name, value in weights.items():
        check_positive(name, value, zero=True)
    loss = invariance * jnp.mean((z1 - z2) ** 2)
    for view in (z1, z2):
        _, matrix = moments(view, axis_name=axis_name)
        deviations = jnp.sqrt(jnp.diagonal(matrix) + _VARIANCE_FLOOR)
        loss += variance / 2 * jnp.mean(jax.nn.relu(1 - deviations))
        loss += covariance / view.shape[1] * jnp.sum(_off_diagonal(matrix) ** 2)
    return loss


def vibcreg(
    z1: Array,
    z2: Array,
    *,
    invariance: float | Array = 25.0,
    variance: float | Array = 25.0,
    covariance: float | Array = 200.0,
    axis_name: AxisName = None,
) -> Array:
    r"""VICReg with a penalty on correlations instead of covariances (VIbCReg).

    .. math:: \frac{\lambda}{BD} \sum_i \|z_{1i} - z_{2i}\|^2
       + \sum_{Z \in \{Z_1, Z_2\}} \left[
       \frac{\mu}{D} \sum_d \max(0, 1 - \sigma_d)
       + \frac{\nu}{D^2} \sum_{d \ne e} C_{de}^2 \right],
       \qquad \sigma_d = \sqrt{\Sigma_{dd} + 10^{-4}}, \;
       C_{de} = \frac{\Sigma_{de}}{\sqrt{\Sigma_{dd} \Sigma_{ee}}}

    with the unbiased covariance of each view of the global batch. The penalty does not depend on
    the scale or, being a mean, on the number of dimensions. Both terms are summed over the views;
    `vicreg` halves the variance. As in the official code a dimension is divided by a norm over the
    batch of at least 1e-12, and the batch is that of all devices, which solo-learn gathers. The
    paper's projector ends with iterative whitening, which is not part of the loss.

    Needs: two views.
    Cost: BD².
    Global batch: means and covariances.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.vibcreg(z1, z2)), 2)
    55.88

    Args:
      z1: embeddings of one view, [b, D], any float dtype.
      z2: embeddings of the other view, [b, D].
      invariance: lambda; zero or more.
      variance: mu; zero or more.
      covariance: nu; zero or more.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or a hyper-parameter is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, or a hyper-parameter is negative.

    References:
      Lee and Aune, Computer Vision Self-supervised Learning Methods on Time Series, 2021
      (arXiv:2109.00783).
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
    for name, value in weights.items():
        check_positive(name, value, zero=True)
    degrees = max(batch_size(z1, axis_name) - 1, 1)
    loss = invariance * jnp.mean((z1 - z2) ** 2)
    for view in (z1, z2):
        _, matrix = moments(view, axis_name=axis_name)
        variances = jnp.diagonal(matrix)
        loss += variance * jnp.mean(jax.nn.relu(1 - jnp.sqrt(variances + _VARIANCE_FLOOR)))
        correlation = cosines_of_dimensions(matrix * degrees)
        loss += covariance * jnp.mean(_off_diagonal(correlation) ** 2)
    return loss


def barlow_twins(
    z1: Array, z2: Array, *, off_diagonal: float | Array = 0.0051, axis_name: AxisName = None
) -> Array:
    r"""Distance of the views' cross-correlation from the identity (Barlow Twins).

    .. math:: \sum_d (C_{dd} - 1)^2 + \lambda \sum_{d \ne e} C_{de}^2

    with `cross_correlation` C over the global batch. The gradient is that of this loss; the
    official code's is divided by the number of devices.

    Needs: two views.
    Cost: BD².
    Global batch: moments and cross-correlation.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.barlow_twins(z1, z2)), 2)
    2.92

    Args:
      z1: embeddings of one view, [b, D], any float dtype.
      z2: embeddings of the other view, [b, D].
      off_diagonal: lambda; zero or more.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or off_diagonal is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, or off_diagonal is negative.

    References:
      Zbontar et al., Barlow Twins: Self-Supervised Learning via Redundancy Reduction, 2021
      (arXiv:2103.03230), eq. 1-2.
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("off_diagonal", off_diagonal, zero=True)
    return from_identity(cross_correlation(z1, z2, axis_name=axis_name), off_diagonal)


def w_mse(
    views: Array | Sequence[Array],
    permutations: Array,
    *,
    whitening_size: int,
    eps: float | Array = 0.0,
    normalize: bool = True,
    axis_name: AxisName = None,
) -> Array:
    r"""Mean squared distance of views that are whitened in random sub-batches (W-MSE).

    .. math:: \frac{2}{V(V-1)} \sum_{u < v} \frac{1}{TB} \sum_{t, i}
       \|\hat w_{tui} - \hat w_{tvi}\|^2,
       \qquad w_{tvi} = L_{tvc}^{-1} (z_{vi} - \mu_{tvc}),
       \; L L^\top = (1 - \epsilon) \Sigma + \epsilon I

    where c is the sub-batch of image i under permutation t, the same images in every view, and mean
    and unbiased covariance are those of one view of it. Gradients flow through both. O(TVBD^2) in
    sub-batches divided among devices.

    Needs: views, permutations.
    Cost: TVBD².
    Global batch: covariances of sub-batches.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> permutations = jnp.arange(8)[None]
    >>> round(float(losses.w_mse(views, permutations, whitening_size=8)), 2)
    2.17

    Args:
      views: V views of the same images, [V, b, D] or a sequence of [b, D], any float dtype; at
        least two.
      permutations: [T, B], each a permutation of the batch indices, cut into
        sub-batches of consecutive entries; the same on every device.
      whitening_size: images of a sub-batch; it divides B. The paper takes about 2D.
      eps: epsilon, 0 to 1. Zero needs more images than dimensions, and is NaN where a sub-batch has
        collapsed.
      normalize: normalize whitened rows; if not, the squared distance is divided by D.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, permutations no integers, or whitening_size or eps
        no number.
      ValueError: shapes are wrong, a row of permutations is not one, or a covariance would be
        undefined.

    References:
      Ermolov et al., Whitening for Self-Supervised Representation Learning, 2020
      (arXiv:2007.06346), section 3.
    """
    views = check_views(views)
    rows = jnp.moveaxis(views, 0, 1)
    size = batch_size(rows, axis_name)
    permutations = check_permutations("permutations", permutations, size)
    _check_whitening(whitening_size, eps, size, views.shape[2])

    # Every device whitens the same number of sub-batches; surplus ones at the end count as zero.
    sub_batches = permutations.reshape(-1, whitening_size)
    devices = size // views.shape[1]
    each = jnp.zeros(-(-sub_batches.shape[0] // devices), views.dtype)
    own = row_ids(each, axis_name)
    counts = jnp.asarray(own < sub_batches.shape[0], views.dtype)
    chosen = sub_batches[jnp.minimum(own, sub_batches.shape[0] - 1)]
    chunks = jnp.moveaxis(gather_rows(rows, axis_name)[chosen], 2, 1)

    def whitened(chunk: Array) -> Array:
        mean, covariance = moments(chunk)
        return whiten(chunk, mean=mean, covariance=(1 - eps) * covariance, eps=eps)[0]

    # One after the other: jaxlib's batched Cholesky and solves can deadlock on CPUs of few cores.
    white = jax.lax.map(whitened, chunks.reshape(-1, *chunks.shape[2:])).reshape(chunks.shape)
    white = (
        unit_rows(white)
        if normalize
        else white / jnp.sqrt(jnp.asarray(white.shape[3], white.dtype))
    )
    # Squared distances of all pairs of V views sum to V times those from their mean.
    distances = jnp.sum((white - jnp.mean(white, axis=1, keepdims=True)) ** 2, axis=(1, 3))
    total = jnp.sum(counts * jnp.mean(distances, axis=1))
    return 2 / (views.shape[0] - 1) * total * devices / sub_batches.shape[0]


def uni_grad(
    z1: Array,
    z2: Array,
    m1: Array,
    m2: Array,
    correlation: Array,
    *,
    weight: float | Array = 100.0,
    axis_name: AxisName = None,
) -> Array:
    r"""Negative cosine with the other view's target plus energy along common directions (UniGrad).

    .. math:: \frac{1}{2B} \sum_i \sum_{(z, m) \in \{(z_1, m_2), (z_2, m_1)\}}
       \left[ -\hat z_i^\top \hat m_i + \frac\lambda2 \hat z_i^\top F \hat z_i \right]

    The official code's surrogate has lambda for lambda / 2 in its value; its gradient is this
    one's.

    Needs: targets, a running correlation.
    Cost: BD².
    Global batch: nothing.

    >>> z1, z2, m1, m2 = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> correlation = losses.uni_grad_correlation(m1, m2)
    >>> round(float(losses.uni_grad(z1, z2, m1, m2, correlation)), 2)
    12.86

    Args:
      z1: embeddings of the first view, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the second view, [b, D].
      m1: momentum embeddings of the first view, [b, D]; they receive no gradient.
      m2: momentum embeddings of the second view, [b, D]; they receive no gradient.
      correlation: F [D, D], symmetric, the same on every device; it receives no gradient. A running
        mean over steps of `uni_grad_correlation`, which the method carries, with momentum 0.99 in
        the paper.
      weight: lambda; zero or more.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or weight is not a number.
      ValueError: inputs differ in shape, correlation is not [D, D], or weight is negative.

    References:
      Tao et al., Exploring the Equivalence of Siamese Self-Supervised Learning via A Unified
      Gradient Framework, 2021 (arXiv:2112.05141).
    """
    del axis_name  # rows are independent
    shapes = {
        name: (rows, "b D") for name, rows in (("z1", z1), ("z2", z2), ("m1", m1), ("m2", m2))
    }
    z1, z2, m1, m2, correlation = check_floats(**shapes, correlation=(correlation, "D D"))
    check_positive("weight", weight, zero=True)
    z = unit_rows(jnp.concatenate([z1, z2]))
    m = unit_rows(jnp.concatenate([m2, m1]))
    # The gradient at z, as a constant: F is symmetric, so nothing else need be computed backward.
    common = weight * matmul(z, correlation)
    slope, energy = jax.lax.stop_gradient((common - m, positives(common, z) / 2))
    return jnp.mean(positives(slope, z) - energy)


def uni_grad_correlation(m1: Array, m2: Array, *, axis_name: AxisName = None) -> Array:
    r"""Correlation of momentum embeddings over both views of the global batch, for `uni_grad`.

    .. math:: F = \frac{1}{2B} \sum_i \left[ \hat m_{1i} \hat m_{1i}^\top
       + \hat m_{2i} \hat m_{2i}^\top \right]

    Needs: targets; gives the correlation.
    Cost: BD².
    Global batch: the correlation.

    >>> m1, m2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> losses.uni_grad_correlation(m1, m2).shape
    (4, 4)

    Args:
      m1: momentum embeddings of the first view, [b, D], any float dtype; rows are normalized here.
      m2: momentum embeddings of the second view, [b, D].
      axis_name: mapped axis over which the batch is spread; None if m1 and m2 are all of it.

    Returns:
      [D, D], the same on every device, without gradient. Its trace is 1.

    Raises:
      TypeError: m1 or m2 is not an array of floats.
      ValueError: m1 and m2 differ in shape or are not matrices.

    References:
      Tao et al., arXiv:2112.05141.
    """
    m1, m2 = jax.lax.stop_gradient(check_embeddings(m1=m1, m2=m2))
    return second_moment(unit_rows(m1), unit_rows(m2), axis_name=axis_name)


def cross_correlation(
    z1: Array, z2: Array, *, real: Array | None = None, axis_name: AxisName = None
) -> Array:
    r"""Correlation of each dimension of one view with each of the other over the global batch.

    .. math::
       C_{de} = \frac{\Sigma_{de}}{\sqrt{(\sigma_{1d}^2 + 10^{-5}) (\sigma_{2e}^2 + 10^{-5})}}

    Args:
      z1: [b, D], float32 or float64.
      z2: [b, D].
      real: bool [b], the rows that count; None for all.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      [D, D], the same on every device.
    """
    kept = jnp.ones_like(z1[:, :1]) if real is None else jnp.asarray(real, z1.dtype)[:, None]
    sums = tuple(jnp.sum(kept * z, axis=0, keepdims=True) for z in (z1, z2))
    count, sums = sum_over((jnp.sum(kept), sums), axis_name)
    x, y = (kept * (z - total / count) for z, total in zip((z1, z2), sums, strict=True))
    squares = jnp.sum(x * x, axis=0), jnp.sum(y * y, axis=0)
    product, (of_x, of_y) = sum_over((matmul(x.T, y), squares), axis_name)
    inverse = lambda squares: jax.lax.rsqrt(squares / count + _STANDARDIZING_EPS)
    return product / count * inverse(of_x)[:, None] * inverse(of_y)[None, :]


def cosines_of_dimensions(gram: Array) -> Array:
    r"""The D x D cosines :math:`G_{de} / (g_d g_e)` of dimensions from their inner products G.

    A norm :math:`g_d = \sqrt{G_{dd}}` below 1e-12 counts as 1e-12: a dimension of
    zeros has cosine 0 with all, itself too.
    """
    inverse = inverse_norms(jnp.diagonal(gram))
    return gram * inverse[:, None] * inverse[None, :]


def inverse_norms(squares: Array) -> Array:
    """One over the norm of each dimension, of at least 1e-12, from its square [D]."""
    return jax.lax.rsqrt(jnp.maximum(squares, jnp.asarray(_LEAST_SQUARE, squares.dtype)))


def from_identity(correlation: Array, off_diagonal: float | Array) -> Array:
    r"""Squared distance from 1: :math:`\sum_d (C_{dd} - 1)^2 + \lambda \sum_{d \ne e} C_{de}^2`."""
    on = jnp.sum((jnp.diagonal(correlation) - 1) ** 2)
    return on + off_diagonal * jnp.sum(_off_diagonal(correlation) ** 2)


def _off_diagonal(square: Array) -> Array:
    return jnp.where(jnp.eye(square.shape[0], dtype=bool), jnp.zeros_like(square), square)


def _check_whitening(whitening_size: int, eps: float | Array, size: int, width: int) -> None:
    check_count("whitening_size", whitening_size, least=2)
    check_share("eps", eps)
    if size % whitening_size:
        raise ValueError(
            f"whitening_size must divide the {size} images of the global batch, "
            f"got {whitening_size}."
        )
    if isinstance(eps, numbers.Real) and eps == 0 and whitening_size <= width:
        raise ValueError(
            f"whitening_size must be more than the {width} dimensions, got {whitening_size}: "
            "the covariance of so few rows has no inverse; take larger sub-batches, "
            "narrower embeddings, or eps above 0."
        )
