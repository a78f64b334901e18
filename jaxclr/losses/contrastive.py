"""Losses that set positives against the other rows of the global batch, or against a queue."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_choice,
    check_embeddings,
    check_floats,
    check_positive,
    contrast,
    gather_rows,
    positives,
    row_ids,
    row_logsumexp,
    self_logsumexp,
    unit_rows,
)

Array = jax.Array


def nt_xent(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.1,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each row's other view among all other rows of both views (SimCLR).

    .. math:: \frac{1}{2B} \sum_{i=1}^{2B} \left[ \log \sum_{j \ne i} e^{s_{ij}}
       - s_{i,p(i)} \right],
       \qquad s = \hat Z \hat Z^\top / \tau,\; Z = [Z_1; Z_2]

    The mean over the 2B rows: half of what the official TensorFlow code sums.

    Needs: negatives.
    Cost: B²D.
    Global batch: row sums over all columns.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.nt_xent(z1, z2, temperature=0.5)), 2)
    2.55

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other view, [b, D].
      temperature: tau; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or temperature is not a number.
      ValueError: z1 and z2 differ in shape or are not matrices, temperature is not positive, or
        implementation is unknown.

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020
      (arXiv:2002.05709), eq. 1.
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("temperature", temperature)
    rows = unit_rows(jnp.concatenate([z1, z2])) / jnp.sqrt(jnp.asarray(temperature, z1.dtype))
    images = jnp.tile(row_ids(z1, axis_name), 2)
    negatives = self_logsumexp(
        rows, exclude=images, implementation=implementation, axis_name=axis_name
    )
    partners = jnp.roll(rows, z1.shape[0], axis=0)
    return jnp.mean(contrast(positives(rows, partners), negatives))


def info_nce(
    q: Array,
    k: Array,
    *,
    temperature: float | Array = 1.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each query's own key among the keys of the global batch (InfoNCE).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right],
       \qquad A = \hat Q \hat K^\top / \tau

    MoCo v3's loss is 2 tau times this, summed over both directions.

    Needs: negatives.
    Cost: B²D.
    Global batch: row sums over all columns.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.info_nce(q, k, temperature=0.2)), 2)
    2.8

    Args:
      q: queries, [b, D], any float dtype; rows are normalized here.
      k: keys, [b, D]; gradients reach them unless the caller stops them.
      temperature: tau; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: q or k is not an array of floats, or temperature is not a number.
      ValueError: q and k differ in shape or are not matrices, temperature is not positive, or
        implementation is unknown.

    References:
      van den Oord et al., Representation Learning with Contrastive Predictive Coding, 2018
      (arXiv:1807.03748), eq. 4; Chen et al., An Empirical Study of Training Self-Supervised Vision
      Transformers, 2021 (arXiv:2104.02057), algorithm 1.
    """
    q, k = check_embeddings(q=q, k=k)
    check_positive("temperature", temperature)
    q, k, ids = unit_rows(q), unit_rows(k), row_ids(q, axis_name)
    negatives = row_logsumexp(
        q / temperature, k, exclude=(ids, ids), implementation=implementation, axis_name=axis_name
    )
    return jnp.mean(contrast(positives(q, k) / temperature, negatives))


def queue_info_nce(
    q: Array,
    k: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.2,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each query's own key among that key and a queue of older keys (MoCo v2).

    .. math:: \frac1B \sum_i \left[ \log \Big( e^{s_i}
       + \sum_{n=1}^{K} e^{\hat q_i \cdot \hat n / \tau} \Big) - s_i \right],
       \qquad s_i = \hat q_i \cdot \operatorname{sg} \hat k_i / \tau

    One direction, queries to keys; the other keys of the batch are no negatives.

    Needs: a queue.
    Cost: BKD.
    Global batch: nothing.

    >>> q, k, queue = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.queue_info_nce(q, k, queue, temperature=0.2)), 2)
    3.55

    Args:
      q: queries, [b, D], any float dtype; rows are normalized here.
      k: keys, [b, D]; they receive no gradient.
      queue: keys of earlier batches, [K, D], whole on every device; they receive no gradient.
      temperature: tau; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`. The queue is on every device already,
        so that a ring is streamed.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: shapes do not fit, temperature is not positive, or implementation
        is unknown.

    References:
      He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2019
      (arXiv:1911.05722), eq. 1; Chen et al., Improved Baselines with Momentum Contrastive Learning,
      2020 (arXiv:2003.04297).
    """
    q, k, queue = _check_queue(q, k, queue)
    return queue_cross_entropy(
        unit_rows(q),
        unit_rows(jax.lax.stop_gradient(k)),
        unit_rows(jax.lax.stop_gradient(queue)),
        temperature=temperature,
        implementation=implementation,
        axis_name=axis_name,
    )


def queue_cross_entropy(
    q: Array,
    k: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.2,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""`queue_info_nce` of rows as they are: none is normalized, and no gradient is stopped.

    .. math:: \frac1B \sum_i \left[ \log \Big( e^{q_i \cdot k_i / \tau}
       + \sum_{n=1}^{K} e^{q_i \cdot n / \tau} \Big) - q_i \cdot k_i / \tau \right]

    For rows that were transformed after they were normalized: see `extrapolate_positives`.

    Needs: a queue, rows as they are.
    Cost: BKD.
    Global batch: nothing.

    >>> q, k, queue = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.queue_cross_entropy(q, k, queue, temperature=2.0)), 2)
    2.5

    Args:
      q: queries, [b, D], any float dtype.
      k: keys, [b, D].
      queue: negatives, [K, D], whole on every device.
      temperature: tau; positive.
      implementation: as of `queue_info_nce`.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: shapes do not fit, temperature is not positive, or implementation
        is unknown.

    References:
      He et al., Momentum Contrast for Unsupervised Visual Representation Learning, 2019
      (arXiv:1911.05722), eq. 1.
    """
    del axis_name  # rows are independent
    q, k, queue = _check_queue(q, k, queue)
    check_positive("temperature", temperature)
    q = q / temperature
    negatives = row_logsumexp(q, queue, implementation=implementation)
    return jnp.mean(contrast(positives(q, k), negatives))


def dcl(
    z1: Array,
    z2: Array,
    *,
    temperature: float | Array = 0.1,
    weighting: Literal["von_mises_fisher"] | None = None,
    sigma: float | Array = 0.5,
    stop_weights: bool = False,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Contrastive loss with a denominator of negatives alone (DCL), or weighted (DCLW).

    .. math:: \frac1B \sum_i \left[ \log \sum_{j \ne i} \left(
       e^{\hat z_{1i} \cdot \hat z_{1j} / \tau}
       + e^{\hat z_{1i} \cdot \hat z_{2j} / \tau} \right)
       - w_i\, \hat z_{1i} \cdot \hat z_{2i} / \tau \right]

    with w = 1, or :math:`w_i = 2 - B \operatorname{softmax}_i(\hat z_{1i} \cdot \hat z_{2i} /
    \sigma)` over the global batch, whose mean is 1. One direction of two. The reference masks with
    log(1e-45), which fails at temperatures below 0.02; here the positive is excluded at any.

    Needs: negatives.
    Cost: B²D.
    Global batch: row sums over all columns.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.dcl(z1, z2, temperature=0.2)), 2)
    3.19

    Args:
      z1: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      z2: embeddings of the other view, [b, D].
      temperature: tau; positive.
      weighting: None, or "von_mises_fisher", which weighs hard positives more (DCLW).
      sigma: of that weighting; positive.
      stop_weights: hold w constant in the gradient; the reference does not, others do.
      implementation: as of `nt_xent`.
      axis_name: mapped axis over which the batch is spread; None if z1 and z2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: z1 or z2 is not an array of floats, or a hyper-parameter is not a number.
      ValueError: shapes do not fit, the global batch is a single row, or a hyper-parameter is out
        of range.

    References:
      Yeh et al., Decoupled Contrastive Learning, 2021 (arXiv:2110.06848).
    """
    z1, z2 = check_embeddings(z1=z1, z2=z2)
    check_positive("temperature", temperature)
    check_positive("sigma", sigma)
    check_choice("weighting", weighting, (None, "von_mises_fisher"))
    count = batch_size(z1, axis_name)
    if count < 2:
        raise ValueError(f"dcl needs other rows as negatives: a batch of at least 2, got {count}.")
    z1, z2 = unit_rows(z1), unit_rows(z2)
    options: dict[str, Any] = {"implementation": implementation, "axis_name": axis_name}
    ids = row_ids(z1, axis_name)
    same_view = self_logsumexp(z1 / jnp.sqrt(jnp.asarray(temperature, z1.dtype)), **options)
    other_view = row_logsumexp(z1 / temperature, z2, exclude=(ids, ids), **options)
    logsumexp = jnp.logaddexp(same_view, other_view)
    cosines = positives(z1, z2)
    if weighting is None:
        return jnp.mean(logsumexp - cosines / temperature)
    closeness = cosines / sigma
    total = jax.nn.logsumexp(gather_rows(closeness, axis_name))
    weights = 2 - count * jnp.exp(closeness - total)
    if stop_weights:
        weights = jax.lax.stop_gradient(weights)
    return jnp.mean(logsumexp - weights * cosines / temperature)


def local_contrast(
    pairs: Sequence[tuple[Array, Array]],
    *,
    temperature: float | Array = 0.1,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Sum of `nt_xent` over the local units of an encoder (LoCo).

    .. math:: \sum_u \text{nt\_xent}(z_{1u}, z_{2u})

    A reconstruction: no official code was found. Gradients are stopped between units where the
    encoder is applied (`methods.Loco`), not here.

    Needs: negatives, embeddings of stages.
    Cost: UB²D.
    Global batch: row sums over all columns.

    >>> z1, z2 = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.local_contrast([(z1, z2), (z1[:, :2], z2[:, :2])], temperature=0.5)), 2)
    4.81

    Args:
      pairs: (z1, z2) of each unit's decoder, [b, D_u] both, any float dtype; rows are normalized
        here.
      temperature: tau; positive.
      implementation: as of `nt_xent`.
      axis_name: mapped axis over which the batch is spread; None if the pairs are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an embedding is not an array of floats, or temperature is not a number.
      ValueError: there is no pair, or one of another length than 2, shapes do not fit, or a
        hyper-parameter is out of range.

    References:
      Xiong et al., LoCo: Local Contrastive Representation Learning, 2020 (arXiv:2008.01342).
    """
    sizes = [len(pair) for pair in pairs]
    if set(sizes) != {2}:
        raise ValueError(f"pairs must be one (z1, z2) for each unit, got units of {sizes} arrays.")
    named = {
        f"pairs[{u}][{v}]": (z, f"b D{u}")
        for u, pair in enumerate(pairs)
        for v, z in enumerate(pair)
    }
    checked = check_floats(**named)
    of_unit = functools.partial(
        nt_xent, temperature=temperature, implementation=implementation, axis_name=axis_name
    )
    return functools.reduce(operator.add, map(of_unit, checked[::2], checked[1::2]))


def _check_queue(q: Array, k: Array, queue: Array) -> tuple[Array, ...]:
    return check_floats(q=(q, "b D"), k=(k, "b D"), queue=(queue, "K D"))
