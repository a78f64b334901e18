"""Losses of positives alone, where a predictor and a stopped target prevent collapse."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    check_embeddings,
    check_floats,
    check_positive,
    positives,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul

Array = jax.Array


def negative_cosine(p: Array, z: Array, *, axis_name: AxisName = None) -> Array:
    r"""Negative mean cosine of predictions and constant targets.

    .. math:: -\frac1B \sum_i \cos(p_i, \operatorname{sg} z_i)

    Needs: predictions, targets.
    Cost: BD.
    Global batch: nothing.

    >>> p, z = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.negative_cosine(p, z)), 2)
    -0.23

    Args:
      p: predictions, [b, D], any float dtype; rows are normalized here.
      z: targets, [b, D]; they receive no gradient.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: p or z is not an array of floats.
      ValueError: p and z differ in shape or are not matrices.

    References:
      Chen and He, Exploring Simple Siamese Representation Learning, 2020 (arXiv:2011.10566), eq. 1
      and 3.
    """
    del axis_name  # rows are independent
    p, z = check_embeddings(p=p, z=z)
    return -jnp.mean(positives(unit_rows(p), unit_rows(jax.lax.stop_gradient(z))))


def sim_siam(p1: Array, p2: Array, z1: Array, z2: Array, *, axis_name: AxisName = None) -> Array:
    r"""Mean negative cosine of predictions and the constant embeddings of the other view (SimSiam).

    .. math:: -\frac{1}{2B} \sum_i \left[ \cos(p_{1i}, \operatorname{sg} z_{2i})
       + \cos(p_{2i}, \operatorname{sg} z_{1i}) \right]

    Needs: predictions, targets.
    Cost: BD.
    Global batch: nothing.

    >>> p1, p2, z1, z2 = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> round(float(losses.sim_siam(p1, p2, z1, z2)), 2)
    0.15

    Args:
      p1: predictions of the first view, [b, D], any float dtype; rows are normalized here.
      p2: predictions of the second view, [b, D].
      z1: embeddings of the first view, [b, D]; they receive no gradient.
      z2: embeddings of the second view, [b, D]; they receive no gradient.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats.
      ValueError: inputs differ in shape or are not matrices.

    References:
      Chen and He, Exploring Simple Siamese Representation Learning, 2020 (arXiv:2011.10566), eq. 4.
    """
    p1, p2, z1, z2 = check_embeddings(p1=p1, p2=p2, z1=z1, z2=z2)
    both = negative_cosine(p1, z2, axis_name=axis_name) + negative_cosine(
        p2, z1, axis_name=axis_name
    )
    return both / 2


def byol(p1: Array, p2: Array, t1: Array, t2: Array, *, axis_name: AxisName = None) -> Array:
    r"""Squared distance of unit predictions and the constant unit targets of the other view (BYOL).

    .. math:: \frac1B \sum_i \left[ \|\hat p_{1i} - \operatorname{sg} \hat t_{2i}\|^2
       + \|\hat p_{2i} - \operatorname{sg} \hat t_{1i}\|^2 \right]

    Needs: predictions, targets.
    Cost: BD.
    Global batch: nothing.

    >>> p1, p2, t1, t2 = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> round(float(losses.byol(p1, p2, t1, t2)), 2)
    4.61

    Args:
      p1: predictions of the first view, [b, D], any float dtype; rows are normalized here.
      p2: predictions of the second view, [b, D].
      t1: momentum embeddings of the first view, [b, D]; they receive no gradient.
      t2: momentum embeddings of the second view, [b, D]; they receive no gradient.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats.
      ValueError: inputs differ in shape or are not matrices.

    References:
      Grill et al., Bootstrap Your Own Latent, 2020 (arXiv:2006.07733), eq. 2.
    """
    p1, p2, t1, t2 = check_embeddings(p1=p1, p2=p2, t1=t1, t2=t2)
    cosines = negative_cosine(p1, t2, axis_name=axis_name) + negative_cosine(
        p2, t1, axis_name=axis_name
    )
    return 4 + 2 * cosines


def direct_pred(
    z1: Array,
    z2: Array,
    t1: Array,
    t2: Array,
    correlation: Array,
    *,
    eps: float | Array = 0.01,
    axis_name: AxisName = None,
) -> Array:
    r"""`byol` with a linear predictor of the eigenvectors of the embeddings (DirectPred).

    .. math:: p = W z, \qquad W = U \operatorname{diag}\Big(
       \sqrt{s_d / \max\nolimits_e s_e} + \epsilon \Big) U^\top,
       \qquad F = U \operatorname{diag}(s)\, U^\top

    Negative eigenvalues count as 0, and a coefficient is at least 1e-4. The official value is this
    one less 4, with the gradient of this one. There the predictor is that of F after the step
    before, and a random one in the first step; which F is given here is the caller's choice.

    Needs: targets, a running correlation.
    Cost: BD² + D³.
    Global batch: nothing.

    >>> z1, z2, t1, t2 = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> correlation = z1.T @ z1 / 8
    >>> round(float(losses.direct_pred(z1, z2, t1, t2, correlation)), 2)
    4.67

    Args:
      z1: embeddings of the first view, [b, D], any float dtype.
      z2: embeddings of the second view, [b, D].
      t1: targets of the first view, [b, D]; they receive no gradient.
      t2: targets of the second view, [b, D]; they receive no gradient.
      correlation: F [D, D], symmetric, the same on every device; it receives no gradient. A running
        mean over steps of `jaxclr.affinity.second_moment` of both views, not normalized.
      eps: epsilon; zero or more.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or eps is not a number.
      ValueError: inputs differ in shape, correlation is not [D, D], or eps is negative.

    References:
      Tian et al., Understanding Self-Supervised Learning Dynamics without Contrastive Pairs, 2021
      (arXiv:2102.06810), eq. 18-19.
    """

    def predictor(correlation: Array) -> Array:
        values, vectors = jnp.linalg.eigh(correlation)
        largest = values[-1]
        exists = largest > 0
        shares = jnp.maximum(values, 0) / jnp.where(exists, largest, jnp.ones_like(largest))
        coefficients = jnp.maximum(jnp.sqrt(shares) + eps, jnp.asarray(1e-4, values.dtype))
        return matmul(vectors * coefficients[None, :], vectors.T)

    return _directly(predictor, z1, z2, t1, t2, correlation, eps, axis_name)


def direct_copy(
    z1: Array,
    z2: Array,
    t1: Array,
    t2: Array,
    correlation: Array,
    *,
    eps: float | Array = 0.3,
    axis_name: AxisName = None,
) -> Array:
    r"""`byol` with the correlation of the embeddings as a linear predictor (DirectCopy).

    .. math:: p = W z, \qquad W = F + \epsilon I

    No eigenvectors are computed. As in the official code F is not divided by its norm, so that
    epsilon is relative to the squared length of embeddings. The rest is as in `direct_pred`. The
    official code has this predictor (directcopy) but no command for it: F is collected only with
    corr_collect, and its own default of epsilon is 0.

    Needs: targets, a running correlation.
    Cost: BD².
    Global batch: nothing.

    >>> z1, z2, t1, t2 = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> correlation = z1.T @ z1 / 8
    >>> round(float(losses.direct_copy(z1, z2, t1, t2, correlation)), 2)
    4.68

    Args:
      z1: embeddings of the first view, [b, D], any float dtype.
      z2: embeddings of the second view, [b, D].
      t1: targets of the first view, [b, D]; they receive no gradient.
      t2: targets of the second view, [b, D]; they receive no gradient.
      correlation: F [D, D], as of `direct_pred`.
      eps: epsilon; zero or more.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or eps is not a number.
      ValueError: inputs differ in shape, correlation is not [D, D], or eps is negative.

    References:
      Wang et al., Towards Demystifying Representation Learning with Non-contrastive
      Self-supervision, 2021 (arXiv:2110.04947).
    """

    def predictor(correlation: Array) -> Array:
        return correlation + eps * jnp.eye(correlation.shape[0], dtype=correlation.dtype)

    return _directly(predictor, z1, z2, t1, t2, correlation, eps, axis_name)


def _directly(
    predictor: Callable[[Array], Array],
    z1: Array,
    z2: Array,
    t1: Array,
    t2: Array,
    correlation: Array,
    eps: float | Array,
    axis_name: AxisName,
) -> Array:
    """`byol` of predictions by a constant symmetric matrix, a function of the correlation."""
    rows = {
        name: (value, "b D") for name, value in (("z1", z1), ("z2", z2), ("t1", t1), ("t2", t2))
    }
    z1, z2, t1, t2, correlation = check_floats(**rows, correlation=(correlation, "D D"))
    check_positive("eps", eps, zero=True)
    matrix = jax.lax.stop_gradient(predictor(jax.lax.stop_gradient(correlation)))
    return byol(matmul(z1, matrix), matmul(z2, matrix), t1, t2, axis_name=axis_name)


def guided_stop_gradient(
    p11: Array,
    p12: Array,
    p21: Array,
    p22: Array,
    z11: Array,
    z12: Array,
    z21: Array,
    z22: Array,
    *,
    axis_name: AxisName = None,
) -> Array:
    r"""Negative cosine that moves the nearest crops of two images towards their siblings (GSG).

    .. math:: -\frac{1}{2B} \sum_i \left[ \cos(p_{1a,i}, \operatorname{sg} z_{1\bar a,i}) +
       \cos(p_{2b,i}, \operatorname{sg} z_{2\bar b,i}) \right], \qquad
       (a, b) = \arg\min_{a, b \in \{1, 2\}} \|z_{1a,i} - z_{2b,i}\|

    where the bar is the other crop; of equal distances the first is taken, in the order 11, 12, 21,
    22 of (a, b). Row i pairs an image with another: the method pairs images over the global batch
    before it calls.

    Needs: predictions, targets, pairs of images.
    Cost: BD.
    Global batch: nothing.

    >>> crops = jax.random.normal(jax.random.key(0), (8, 8, 4))  # p11 ... p22, z11 ... z22
    >>> round(float(losses.guided_stop_gradient(*crops)), 2)
    0.09

    Args:
      p11: predictions of the first image's first crop, [b, D], any float dtype; rows are normalized
        here.
      p12: predictions of its second crop, [b, D].
      p21: predictions of the second image's first crop, [b, D].
      p22: predictions of its second crop, [b, D].
      z11, z12, z21, z22: embeddings of the same crops, [b, D]; they receive no gradient, and
        distances are those of embeddings as they are.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats.
      ValueError: inputs differ in shape or are not matrices.

    References:
      Lee and Lee, Implicit Contrastive Representation Learning with Guided Stop-gradient, 2023
      (arXiv:2503.09058).
    """
    p11, p12, p21, p22, z11, z12, z21, z22 = check_embeddings(
        p11=p11, p12=p12, p21=p21, p22=p22, z11=z11, z12=z12, z21=z21, z22=z22
    )
    squared = lambda x, y: jnp.sum((x - y) ** 2, axis=1, keepdims=True)
    distances = [squared(x, y) for x in (z11, z12) for y in (z21, z22)]
    nearest = jax.lax.stop_gradient(jnp.argmin(jnp.stack(distances), axis=0))
    of_first = negative_cosine(
        jnp.where(nearest < 2, p11, p12), jnp.where(nearest < 2, z12, z11), axis_name=axis_name
    )
    of_second = negative_cosine(
        jnp.where(nearest % 2 == 0, p21, p22),
        jnp.where(nearest % 2 == 0, z22, z21),
        axis_name=axis_name,
    )
    return (of_first + of_second) / 2
