"""Losses whose positives and negatives are told by labels."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_floats,
    check_ids,
    check_positive,
    check_views,
    gather_rows,
    row_ids,
    row_logsumexp,
    self_labeled_logsumexp,
    self_logsumexp,
    sum_over,
    unit_rows,
)

Array = jax.Array


def sup_con(
    views: Array | Sequence[Array],
    labels: Array,
    *,
    temperature: float | Array = 0.07,
    base_temperature: float | Array = 0.07,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of rows with the same label among all other rows of all views (SupCon).

    .. math:: \frac{\tau}{\tau_0} \frac{1}{VB} \sum_a \Big[ \log \sum_{j \ne a} e^{s_{aj}}
       - \frac{1}{|P(a)|} \sum_{p \in P(a)} s_{ap} \Big],
       \qquad s = \hat Z \hat Z^\top / \tau

    over the VB rows of all views, P(a) being the other rows of the label of a; a row without any
    counts as 0. With a label of its own for each image and two views it is tau / tau_0 times
    `nt_xent`.

    Needs: labels, views.
    Cost: V²B²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> labels = jnp.arange(8) % 4
    >>> round(float(losses.sup_con(views, labels, temperature=0.2)), 2)
    16.09

    Args:
      views: embeddings, [V, b, D] or V arrays [b, D], any float dtype; rows are normalized here.
      labels: any integers, [b].
      temperature: tau; positive.
      base_temperature: tau_0; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if the views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, labels none of integers, or a temperature is not a
        number.
      ValueError: shapes do not fit, or a hyper-parameter is out of range.

    References:
      Khosla et al., Supervised Contrastive Learning, 2020 (arXiv:2004.11362), eq. 2.
    """
    views = check_views(views, least=1)
    number, rows, width = views.shape
    labels = check_ids("labels", labels, rows)
    check_positive("temperature", temperature)
    check_positive("base_temperature", base_temperature)
    z = unit_rows(views.reshape(-1, width)) / jnp.sqrt(jnp.asarray(temperature, views.dtype))
    logsumexp, matched, count = self_labeled_logsumexp(
        z, labels=jnp.tile(labels, number), implementation=implementation, axis_name=axis_name
    )
    mated = count > 0
    mean = matched / jnp.where(mated, count, jnp.ones_like(count))
    loss = jnp.mean(jnp.where(mated, logsumexp - mean, jnp.zeros_like(mean)))
    return loss * (temperature / base_temperature)


def sep_clr(
    common1: Array,
    common2: Array,
    salient1: Array,
    salient2: Array,
    labels: Array,
    *,
    salient_weight: float | Array = 1000.0,
    background_weight: float | Array = 1000.0,
    joint_entropy_weight: float | Array = 10.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Separates features common to background and target images from those of targets (SepCLR).

    .. math:: a(\hat c) + u(\hat c) + w_s\,[a_1(s) + u(\tilde s)]
       + w_b \tfrac12 \sum_v \operatorname{mean}_{y_i = 0} \|s_{vi}\|^2
       + w_j \tfrac12 \sum_v \operatorname{mean}_i \log \operatorname{mean}_j
       e^{-\|\hat c_{vi} - \hat c_{vj}\|^2 - \|\tilde s_{vi} - \tilde s_{vj}\|^2}

    Alignment a is the mean of :math:`\|x_{1i} - x_{2i}\|^2`, :math:`a_1` that over targets, and
    uniformity u the sum over both views of
    :math:`\log \operatorname{mean}_{i \ne j} e^{-\|x_i - x_j\|^2}`. In :math:`\tilde s` background
    rows are 0, so that they all lie at the origin, as negatives of each other and of targets. The
    mean over a class that is absent is 0.

    Needs: labels, two embeddings.
    Cost: B²D.
    Global batch: log-mean-exps over pairs.

    >>> common1, common2, salient1, salient2 = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> round(float(losses.sep_clr(common1, common2, salient1, salient2, jnp.arange(8) % 2)), 2)
    4639.76

    Args:
      common1: common embeddings of one view, [b, D], any float dtype; rows are normalized here.
      common2: those of the other view, [b, D].
      salient1: salient embeddings of one view, [b, S]; used as they are.
      salient2: those of the other view, [b, S].
      labels: 0 for background and 1 for target images, [b].
      salient_weight: w_s; zero or more.
      background_weight: w_b, against information about background images in s; zero or more.
      joint_entropy_weight: w_j, against mutual information of c and s; zero or more.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an embedding is not an array of floats, labels are not integers, or a weight is no
        number.
      ValueError: shapes do not fit, a label is neither 0 nor 1, the global batch is a single row,
        or a weight is negative.

    References:
      Louiset et al., SepCLR, 2024 (arXiv:2402.11928).
    """
    c1, c2, s1, s2 = check_floats(
        common1=(common1, "b D"),
        common2=(common2, "b D"),
        salient1=(salient1, "b S"),
        salient2=(salient2, "b S"),
    )
    labels = check_ids("labels", labels, c1.shape[0], below=2)
    check_positive("salient_weight", salient_weight, zero=True)
    check_positive("background_weight", background_weight, zero=True)
    check_positive("joint_entropy_weight", joint_entropy_weight, zero=True)
    count = batch_size(c1, axis_name)
    if count < 2:
        raise ValueError(f"sep_clr needs pairs of images: a batch of at least 2, got {count}.")
    c1, c2 = unit_rows(c1), unit_rows(c2)
    target = labels.astype(c1.dtype)
    t1, t2 = (s * target[:, None] for s in (s1, s2))

    options: dict[str, Any] = {"implementation": implementation, "axis_name": axis_name}
    mean_of = functools.partial(_mean_of, axis_name=axis_name)
    closeness = functools.partial(_closeness, **options)

    def uniformity(of_rows: Array) -> Array:
        """Log-mean-exp over all pairs, given the log-sum-exp [b] of each row with all others."""
        every = jax.nn.logsumexp(gather_rows(of_rows, axis_name))
        return every - jnp.log(jnp.asarray(count * (count - 1), of_rows.dtype))

    # Of unit rows |x - y|^2 = 2 - 2 <x, y>, a symmetric matrix, whose gradient is cheaper.
    of_unit = lambda rows: uniformity(self_logsumexp(rows * 2**0.5, **options) - 2)
    of_any = lambda rows: uniformity(closeness(rows, others=True))
    shared = jnp.mean(_squares(c1 - c2)) + of_unit(c1) + of_unit(c2)
    specific = mean_of(target, _squares(s1 - s2)) + of_any(t1) + of_any(t2)
    background = mean_of(1 - target, (_squares(s1) + _squares(s2)) / 2)
    both = [closeness(jnp.concatenate(view, axis=1)) for view in ((c1, t1), (c2, t2))]
    joint = jnp.mean(both[0] + both[1]) / 2 - jnp.log(jnp.asarray(count, c1.dtype))
    return (
        shared
        + salient_weight * specific
        + background_weight * background
        + joint_entropy_weight * joint
    )


def _squares(rows: Array) -> Array:
    return jnp.sum(rows * rows, axis=1)


def _mean_of(weights: Array, values: Array, *, axis_name: AxisName) -> Array:
    """Mean over the global batch of values [b] by weights of 0 and 1; 0 without a 1."""
    total, count = sum_over((jnp.sum(weights * values), jnp.sum(weights)), axis_name)
    return total / jnp.maximum(count, 1)


def _closeness(
    rows: Array, *, others: bool = False, implementation: Implementation, axis_name: AxisName
) -> Array:
    """log sum_j exp(-|x_i - x_j|^2) [b] over all rows of the global batch, or all others."""
    scaled, squares = rows * 2**0.5, _squares(rows)
    ids = row_ids(rows, axis_name)
    found = row_logsumexp(
        scaled,
        scaled,
        exclude=(ids, ids) if others else None,
        column_bias=-squares,
        implementation=implementation,
        axis_name=axis_name,
    )
    return found - squares
