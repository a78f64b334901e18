"""Losses of any number of views of each image."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_batch,
    check_embeddings,
    check_positive,
    check_views,
    contrast,
    positives,
    row_ids,
    row_logsumexp,
    self_logsumexp,
    unit_rows,
)

Array = jax.Array
Views = Array | Sequence[Array]


def mv_info_nce(
    views: Views,
    *,
    temperature: float | Array = 0.5,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of all pairs of an image's views among all pairs of rows (MV-InfoNCE).

    .. math:: \frac1B \sum_i \Big[ \log \sum_l \sum_{(j,m) \ne (i,l)} e^{s_{il,jm}}
       - \log \sum_{l \ne m} e^{s_{il,im}} \Big],
       \qquad s_{il,jm} = \langle \hat z_{il}, \hat z_{jm} \rangle / \tau

    The denominator holds the views of the image itself and other images' rows of the same view, as
    in the official code. For two views it is not `nt_xent`: both rows of an image share one
    logarithm.

    Needs: negatives, views.
    Cost: V²B²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.mv_info_nce(views)), 2)
    2.61

    Args:
      views: [V, b, D], or a sequence of V >= 2 arrays [b, D], any float dtype; rows are normalized
        here.
      temperature: tau; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or temperature is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, temperature is not
        positive, or implementation is unknown.

    References:
      Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025
      (arXiv:2507.06979).
    """
    rows = _rows(views, temperature)
    negatives = self_logsumexp(
        _flat(rows),
        exclude=_images(rows, axis_name),
        implementation=implementation,
        axis_name=axis_name,
    ).reshape(rows.shape[:2])
    return jnp.mean(contrast(_logsumexp_of_positives(rows), *negatives))


def mv_dhel(
    views: Views,
    *,
    temperature: float | Array = 0.5,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Uniformity within each view, alignment of all pairs of views of an image (MV-DHEL).

    .. math:: \frac1B \sum_i \Big[ \sum_l \log \sum_{j \ne i} e^{s_{il,jl}}
       - \log \sum_{l < m} e^{s_{il,im}} \Big],
       \qquad s_{il,jm} = \langle \hat z_{il}, \hat z_{jm} \rangle / \tau

    The sum of logarithms is the logarithm of the product that the official code takes, which
    overflows float32.

    Needs: negatives, views.
    Cost: VB²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.mv_dhel(views)), 2)
    5.29

    Args:
      views: [V, b, D], or a sequence of V >= 2 arrays [b, D], any float dtype; rows are normalized
        here.
      temperature: tau; positive.
      implementation: as of `mv_info_nce`.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or temperature is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, the global batch is
        a single image, temperature is not positive, or implementation is unknown.

    References:
      Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025
      (arXiv:2507.06979).
    """
    rows = _rows(views, temperature)
    check_batch(batch_size(rows[0], axis_name))
    within = functools.partial(self_logsumexp, implementation=implementation, axis_name=axis_name)
    logsumexp = sum(within(view) for view in rows)
    return jnp.mean(logsumexp - _logsumexp_of_positives(rows)) + math.log(2)  # each pair twice


def dhel(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.3,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Each view's rows are spread among themselves, and positives attracted (DHEL).

    .. math:: \frac1B \sum_i \Big[ \log \sum_{j \ne i}
       e^{\langle \hat z_{1i}, \hat z_{1j} \rangle / \tau}
       + \log \sum_{j \ne i} e^{\langle \hat z_{2i}, \hat z_{2j} \rangle / \tau}
       - \langle \hat z_{1i}, \hat z_{2i} \rangle / \tau \Big]

    The form that spreads both views; the official code can also leave the second one out. `mv_dhel`
    of two views.

    Needs: negatives.
    Cost: B²D.
    Global batch: row sums over all columns.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.dhel(z1, z2, temperature=0.3)), 2)
    4.3

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other view, [b, D].
      temperature: tau; positive.
      implementation: as of `mv_info_nce`.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or temperature is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, the global batch is a single image,
        temperature is not positive, or implementation is unknown.

    References:
      Koromilas et al., Bridging Mini-Batch and Asymptotic Analysis in Contrastive Learning: From
      InfoNCE to Kernel-Based Losses, 2024 (arXiv:2405.18045).
    """
    views = jnp.stack(check_embeddings(z1=z1, z2=z2))
    return mv_dhel(
        views, temperature=temperature, implementation=implementation, axis_name=axis_name
    )


def pairwise_nt_xent(
    views: Views,
    *,
    temperature: float | Array = 0.5,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Mean of `nt_xent` over all pairs of views (PWE).

    .. math:: \binom{V}{2}^{-1} \sum_{l < m} \text{nt\_xent}(Z_l, Z_m)

    O(V^2 B^2 D), streamed: each block of two views is formed once.

    Needs: negatives, views.
    Cost: V²B²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.pairwise_nt_xent(views)), 2)
    3.22

    Args:
      views: [V, b, D], or a sequence of V >= 2 arrays [b, D], any float dtype; rows are normalized
        here.
      temperature: tau; positive.
      implementation: as of `mv_info_nce`.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or temperature is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, temperature is not
        positive, or implementation is unknown.

    References:
      Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025
      (arXiv:2507.06979).
    """
    rows = _rows(views, temperature)
    ids = _images(rows, axis_name), row_ids(rows[0], axis_name)
    over = functools.partial(
        row_logsumexp, _flat(rows), exclude=ids, implementation=implementation, axis_name=axis_name
    )
    negatives = jnp.stack([over(view).reshape(rows.shape[:2]) for view in rows], axis=1)
    # The sum of a row over its own view is shared by all pairs that have it.
    own = jnp.stack([negatives[v, v] for v in range(len(rows))])
    return _mean_of_pairs(contrast(_own_logits(rows), own[:, None], negatives))


def average_nt_xent(
    views: Views,
    *,
    temperature: float | Array = 0.5,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Mean over views of NT-Xent of that view and the mean of the others (AVG).

    .. math:: \frac1V \sum_l \text{nt\_xent}\Big(\hat Z_l, \frac{1}{V - 1}
       \sum_{m \ne l} \hat Z_m\Big)

    where the mean of unit rows is not normalized again.

    Needs: negatives, views.
    Cost: VB²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.average_nt_xent(views)), 2)
    3.04

    Args:
      views: [V, b, D], or a sequence of V >= 2 arrays [b, D], any float dtype; rows are normalized
        here.
      temperature: tau; positive.
      implementation: as of `mv_info_nce`.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or temperature is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, temperature is not
        positive, or implementation is unknown.

    References:
      Koromilas et al., A Principled Framework for Multi-View Contrastive Learning, 2025
      (arXiv:2507.06979).
    """
    rows = _rows(views, temperature)
    others = (jnp.sum(rows, axis=0, keepdims=True) - rows) / (len(rows) - 1)
    pairs = jnp.concatenate([rows, others], axis=1)  # [V, 2b, D]
    images = jnp.tile(row_ids(rows[0], axis_name), 2)
    within = functools.partial(
        self_logsumexp, exclude=images, implementation=implementation, axis_name=axis_name
    )
    negatives = jnp.stack([within(pair) for pair in pairs])
    return jnp.mean(contrast(jnp.tile(positives(rows, others), 2), negatives))


def poly_view(
    views: Views,
    *,
    temperature: float | Array = 0.5,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Mean cross-entropy of pairs of views among the views of other images (PVC, geometric).

    .. math:: \frac{1}{V(V-1)B} \sum_{l \ne m} \sum_i
       -\log \frac{e^{s_{il,im}}}{e^{s_{il,im}} + \sum_{j \ne i} \sum_{n} e^{s_{il,jn}}},
       \qquad s_{il,jm} = \langle \hat z_{il}, \hat z_{jm} \rangle / \tau

    For two views it is `nt_xent`.

    Needs: negatives, views.
    Cost: V²B²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.poly_view(views)), 2)
    3.64

    Args:
      views: [V, b, D], or a sequence of V >= 2 arrays [b, D], any float dtype; rows are normalized
        here.
      temperature: tau; positive.
      implementation: as of `mv_info_nce`.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or temperature is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, temperature is not
        positive, or implementation is unknown.

    References:
      Shidani et al., Poly-View Contrastive Learning, 2024 (arXiv:2403.05490).
    """
    rows = _rows(views, temperature)
    negatives = self_logsumexp(
        _flat(rows),
        exclude=_images(rows, axis_name),
        implementation=implementation,
        axis_name=axis_name,
    )
    return _mean_of_pairs(contrast(_own_logits(rows), negatives.reshape(rows.shape[:2])[:, None]))


def _rows(views: Views, temperature: float | Array) -> Array:
    """Unit rows [V, b, D], over the root of the temperature."""
    views = check_views(views)
    check_positive("temperature", temperature)
    return unit_rows(views) / jnp.sqrt(jnp.asarray(temperature, views.dtype))


def _flat(rows: Array) -> Array:
    """[V, b, D] to [V * b, D]: rows of one view after those of another."""
    return rows.reshape(-1, rows.shape[2])


def _images(rows: Array, axis_name: AxisName) -> Array:
    """The batch index of the image of each flat row: int32 [V * b]."""
    return jnp.tile(row_ids(rows[0], axis_name), len(rows))


def _own_logits(rows: Array) -> Array:
    """Of each image: inner products of its views, [V, V, b]."""
    return positives(rows[:, None], rows[None])


def _logsumexp_of_positives(rows: Array) -> Array:
    """Of each image, over all ordered pairs of its views: [b]."""
    logits = _own_logits(rows)
    return jax.nn.logsumexp(jnp.where(_two_views(logits), logits, -jnp.inf), axis=(0, 1))


def _mean_of_pairs(values: Array) -> Array:
    """Mean of values [V, V, b] over ordered pairs of two views, and over images."""
    count, _, images = values.shape
    values = jnp.where(_two_views(values), values, jnp.zeros_like(values))
    return jnp.sum(values) / (count * (count - 1) * images)


def _two_views(values: Array) -> Array:
    """Which entries of [V, V, b] are of two views, not of a view and itself: [V, V, 1]."""
    return ~jnp.eye(len(values), dtype=bool)[:, :, None]
