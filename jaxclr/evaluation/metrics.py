"""Signs of collapse: how many directions the features use, and how far they spread."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxclr import losses
from jaxclr.affinity import check_views, row_max, unit_rows
from jaxclr.evaluation.feature_checks import check_features


def spectrum(z: Array) -> Array:
    r"""Eigenvalues of the centered covariance of unit rows, the largest first.

    .. math:: \lambda = \operatorname{eig}\,\operatorname{cov}(z_i / |z_i|)

    `total_variance` is their sum, `effective_rank` the exponential of their entropy.

    Args:
      z: features, [n, D].

    Returns:
      float32 [min(n, D)].

    Raises:
      ValueError: z is not a matrix of rows.

    References:
      Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning, 2021
      (arXiv:2110.09348).
    """
    return _singular_values(_centered_unit_rows(z)) ** 2 / z.shape[0]


def effective_rank(z: Array) -> Array:
    r"""Exponential of the entropy of the spectrum of the centered covariance of unit rows.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \quad p_k = \lambda_k \Big/ \sum_j \lambda_j,
              \quad \lambda = \operatorname{eig}\,\operatorname{cov}(z_i / |z_i|)

    From 1 (features on a line) to min(D, n - 1). Rounding noise around a single point has a high
    rank too: read it beside `total_variance`. It is not `rank_me`, which does not center.

    >>> round(float(jaxclr.evaluation.effective_rank(jnp.eye(4))), 2)
    3.0

    Args:
      z: features, [n, D].

    Returns:
      A float32 scalar; 1 if there is no variance at all.

    Raises:
      ValueError: z is not a matrix of rows.

    References:
      Roy and Vetterli, The effective rank: a measure of effective dimensionality, 2007.
    """
    return exp_entropy(spectrum(z))


def total_variance(z: Array) -> Array:
    r"""Trace of the covariance of unit rows: 0 for a single point, at most 1.

    .. math:: \frac{1}{n} \sum_i |u_i - \bar u|^2, \quad u_i = z_i / |z_i|

    >>> round(float(jaxclr.evaluation.total_variance(jnp.ones((8, 4)))), 3)  # collapse
    0.0

    Args:
      z: features, [n, D].

    Returns:
      A float32 scalar.

    Raises:
      ValueError: z is not a matrix of rows.
    """
    return jnp.mean(jnp.sum(_centered_unit_rows(z) ** 2, axis=1))


def feature_std(z: Array) -> Array:
    r"""Standard deviation of the entries of unit rows over the rows, averaged over dimensions.

    .. math:: \frac1D \sum_d \operatorname{std}_i(z_{id} / |z_i|)

    0 for a single point, :math:`1 / \sqrt D` for an isotropic cloud around the origin.

    Args:
      z: features, [n, D].

    Returns:
      A float32 scalar.

    Raises:
      ValueError: z is not a matrix of rows.

    References:
      Chen and He, Exploring Simple Siamese Representation Learning, 2020 (arXiv:2011.10566),
      section 4.1.
    """
    return jnp.mean(jnp.sqrt(jnp.mean(_centered_unit_rows(z) ** 2, axis=0)))


def rank_me(z: Array, *, eps: float = 1e-7) -> Array:
    r"""RankMe: exponential of the entropy of the singular values of the features as they are.

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \quad
              p_k = \sigma_k(Z) \Big/ \sum_j \sigma_j(Z) + \epsilon

    Neither centered nor normalized.

    >>> round(float(jaxclr.evaluation.rank_me(jnp.eye(4))), 2)
    4.0

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
    return exp_entropy(_singular_values(z.astype(jnp.float32)), floor=eps)


def collapse_auc(z: Array) -> Array:
    r"""Area under the cumulative sum of the singular values of the centered features, as shares.

    .. math:: \frac1K \sum_{k=1}^K \frac{\sum_{i \le k} \sigma_i}{\sum_i \sigma_i},
              \quad \sigma = \sigma(Z - \bar z),\; K = \min(n, D)

    About 1/2 for an isotropic cloud, 1 for features on a line. Centered, not normalized.

    Args:
      z: features, [n, D]; representations of the training set in the paper.

    Returns:
      A float32 scalar; 1 if there is no variance at all.

    Raises:
      ValueError: z is not a matrix of rows.

    References:
      Li, Efros and Pathak, Understanding Collapse in Non-Contrastive Siamese Representation
      Learning, 2022 (arXiv:2209.15007).
    """
    check_features("z", z)
    z = z.astype(jnp.float32)
    sums = jnp.cumsum(_singular_values(z - jnp.mean(z, axis=0, keepdims=True)))
    varies = sums[-1] > 0
    return jnp.mean(jnp.where(varies, sums / jnp.where(varies, sums[-1], 1.0), 1.0))


def alignment(z1: Array, z2: Array, *, alpha: float = 2.0) -> Array:
    r"""Mean distance between unit rows of two views of the same images, to a power.

    .. math:: \frac1n \sum_i |u_{1i} - u_{2i}|^\alpha, \quad u_i = z_i / |z_i|

    Args:
      z1: features of one view, [n, D].
      z2: features of the other view, [n, D].
      alpha: the power; positive.

    Returns:
      A scalar.

    Raises:
      ValueError: z1 and z2 differ in shape or are not matrices, or alpha is not positive.

    References:
      Wang and Isola, Understanding Contrastive Representation Learning through Alignment and
      Uniformity on the Hypersphere, 2020 (arXiv:2005.10242), section 4.1.
    """
    return losses.alignment(z1, z2, alpha=alpha)


def uniformity(z: Array, *, t: float = 2.0) -> Array:
    r"""Logarithm of the mean Gaussian potential of pairs of unit rows: the lower, the more uniform.

    .. math:: \log \frac{1}{n(n-1)} \sum_{i \ne j} e^{-t |u_i - u_j|^2}, \quad u_i = z_i / |z_i|

    O(n^2 D), in bounded memory.

    Args:
      z: features, [n, D] with n > 1.
      t: of the potential; positive.

    Returns:
      A scalar, from -4t to 0.

    Raises:
      ValueError: z is not a matrix of at least two rows, or t is not positive.

    References:
      Wang and Isola, arXiv:2005.10242, section 4.1.
    """
    return losses.uniformity(z, t=t)


def augmentation_confusion_ratio(views: Array | Sequence[Array]) -> Array:
    r"""Share of first views whose nearest neighbor among all views is of another image (ACR).

    .. math:: \frac1n \sum_i
              [\, \operatorname{image}(\arg\min_{x \ne u_{1i}} |u_{1i} - x|) \ne i \,]

    with x over all V n unit rows but the anchor itself. 0 if augmentation confuses no images.
    Whether a neighbor is of the same image is decided by its index, where the official code also
    counts the same index of other batches.
    O(V n^2 D), in bounded memory.

    Args:
      views: features (projector outputs) of V views of the same n images, [V, n, D] or a sequence
        of [n, D]; at least two, six in the paper.

    Returns:
      A float32 scalar in [0, 1].

    Raises:
      TypeError: views are not arrays of floats.
      ValueError: views differ in shape, are not matrices, or are too few.

    References:
      Wang et al., Chaos is a Ladder: A New Theoretical Understanding of Contrastive Learning via
      Augmentation Overlap, 2022 (arXiv:2203.13457).
    """
    views = check_views(views)
    count = views.shape[1]
    rows = unit_rows(views).reshape(-1, views.shape[2])
    # Distances stay the same, and those of features close together keep their digits.
    rows = rows - jnp.mean(rows, axis=0, keepdims=True)
    closeness = lambda products, squares: 2 * products - squares
    images, every = jnp.arange(count), jnp.arange(rows.shape[0])
    nearest = row_max(
        closeness,
        rows[:count],
        rows,
        column_values=(jnp.sum(rows * rows, axis=1),),
        exclude=(images, every),
    )
    return jnp.mean(nearest.column % count != images, dtype=jnp.float32)


def average_relative_confusion(acr: Array | float, initial_acr: Array | float) -> Array:
    r"""How much less features confuse images than at first, :math:`(1 - ACR) / (1 - ACR_0)` (ARC).

    Args:
      acr: `augmentation_confusion_ratio` of the features.
      initial_acr: that of the untrained encoder, or of an early checkpoint.

    Returns:
      A scalar; infinite if the first features confused every image.

    References:
      Wang et al., arXiv:2203.13457.
    """
    return (1 - jnp.asarray(acr, jnp.float32)) / (1 - jnp.asarray(initial_acr, jnp.float32))


def _centered_unit_rows(z: Array) -> Array:
    check_features("z", z)
    z = unit_rows(z.astype(jnp.float32))
    return z - jnp.mean(z, axis=0, keepdims=True)


def _singular_values(x: Array) -> Array:
    """Of x itself: roots of its Gram matrix's eigenvalues are noise below 3e-4 in float32."""
    if x.shape[0] > x.shape[1]:
        x = jnp.linalg.qr(x, mode="r")  # D x D, with the same singular values
    return jnp.linalg.svd(x, compute_uv=False)


def exp_entropy(values: Array, *, floor: float = 0.0) -> Array:
    """Exponential of the entropy of values over their sum, plus the floor; all zeros give 1."""
    share = values / jnp.maximum(jnp.sum(values), jnp.finfo(values.dtype).tiny) + floor
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))
