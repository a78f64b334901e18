"""Losses of the scores of a student and of a teacher whose assignments are balanced by a center."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_floats,
    check_mask,
    check_positive,
    check_views,
    sum_over,
)

Array = jax.Array


def dino(
    scores: Array | Sequence[Array],
    teacher_scores: Array | Sequence[Array],
    center: Array,
    *,
    temperature: float | Array = 0.1,
    teacher_temperature: float | Array = 0.04,
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of a student with the centered and sharpened teacher of other views (DINO).

    .. math:: -\frac{1}{T (V - 1)} \sum_{t=1}^{T} \sum_{v \ne t} \frac1B \sum_i \sum_k
       \operatorname{softmax}_k \Big( \frac{s'_{ti} - c}{\tau'} \Big)
       \log \operatorname{softmax}_k \Big( \frac{s_{vi}}{\tau} \Big)

    View t of the teacher and view t of the student are the same. The official code computes the
    same mean; its center is a running mean of `dino_center`, updated after the loss.

    Needs: scores of prototypes, a teacher, views.
    Cost: (T + V)BK.
    Global batch: nothing; the center is.

    >>> student, teacher = jax.random.normal(jax.random.key(0), (2, 2, 8, 5))
    >>> round(float(losses.dino(student, teacher, losses.dino_center(teacher))), 2)
    10.68

    Args:
      scores: s, of the student for V views, [V, b, K] or a sequence of [b, K], any float dtype; at
        least two.
      teacher_scores: s', of the teacher for the first T <= V views, likewise; no gradient.
      center: c [K], the same on every device; no gradient.
      temperature: tau; positive.
      teacher_temperature: tau'; positive, and smaller to sharpen.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or a temperature is not a number.
      ValueError: a shape is wrong, the teacher has more views than the student, or a temperature is
        not positive.

    References:
      Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021
      (arXiv:2104.14294), eq. 3 and algorithm 1.
    """
    del axis_name  # rows are independent, and the center is whole
    scores, teacher_scores, center = check_floats(
        scores=(check_views(scores, name="scores"), "V b K"),
        teacher_scores=(check_views(teacher_scores, least=1, name="teacher_scores"), "T b K"),
        center=(center, "K"),
    )
    check_positive("temperature", temperature)
    check_positive("teacher_temperature", teacher_temperature)
    views, teachers = len(scores), len(teacher_scores)
    if teachers > views:
        raise ValueError(f"teacher_scores must be at most the {views} of scores, got {teachers}.")
    centered = (teacher_scores - center[None, None]) / teacher_temperature
    assignments = jax.lax.stop_gradient(jax.nn.softmax(centered, axis=2))
    log_shares = jax.nn.log_softmax(scores / temperature, axis=2)
    total = jnp.zeros((), scores.dtype)
    # View by view: XLA computes shares again for each element of a sum over the axis of views.
    for view in range(views):
        of_others = [assignments[teacher] for teacher in range(teachers) if teacher != view]
        if of_others:
            total -= jnp.mean(jnp.sum(sum(of_others) * log_shares[view], axis=1))
    return total / (teachers * (views - 1))


def dino_center(teacher_scores: Array | Sequence[Array], *, axis_name: AxisName = None) -> Array:
    r"""Mean scores of the teacher over the global batch, whose running mean centers DINO.

    .. math:: \frac{1}{TB} \sum_{t,i} s'_{ti}

    Needs: scores of a teacher; gives their mean.
    Cost: TBK.
    Global batch: the mean.

    >>> teacher = jax.random.normal(jax.random.key(0), (2, 8, 5))
    >>> losses.dino_center(teacher).shape
    (5,)

    Args:
      teacher_scores: s', [T, b, K] or a sequence of [b, K], any float dtype.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      [K], the same on every device and constant in the gradient.

    Raises:
      TypeError: teacher_scores are not arrays of floats.
      ValueError: a shape is wrong.

    References:
      Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021
      (arXiv:2104.14294), eq. 4.
    """
    scores = check_views(teacher_scores, least=1, name="teacher_scores")
    total = sum_over(jnp.sum(jax.lax.stop_gradient(scores), axis=(0, 1)), axis_name)
    return total / (len(scores) * batch_size(scores[0], axis_name))


def ibot_patch(
    scores: Array,
    teacher_scores: Array,
    mask: Array,
    center: Array,
    *,
    temperature: float | Array = 0.1,
    teacher_temperature: float | Array = 0.04,
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of a student with a teacher at patches masked for the student (iBOT).

    .. math:: -\frac1B \sum_i \frac{1}{\max(1, |M_i|)} \sum_{n \in M_i} \sum_k
       \operatorname{softmax}_k \Big( \frac{s'_{in} - c}{\tau'} \Big)
       \log \operatorname{softmax}_k \Big( \frac{s_{in}}{\tau} \Big)

    for one view of B images with masked patches M: the mean over the masked patches of each image,
    then over all images; an image without masked patches counts as 0. The official code computes
    the same mean of each view, and then that of both. Its center is a running mean of
    `dino_center`, over all patches of both views, masked or not; DINOv2's is over masked patches.

    Needs: scores of patches, a teacher, masks.
    Cost: BNK, for N patches.
    Global batch: nothing; the center is.

    Args:
      scores: s, of the student for the patches of one view, [b, N, K], any float dtype.
      teacher_scores: s', of the teacher for the same patches, likewise; no gradient.
      mask: bool [b, N], True for patches that were masked for the student.
      center: c [K], the same on every device; no gradient.
      temperature: tau; positive.
      teacher_temperature: tau'; positive, and smaller to sharpen.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: scores are not arrays of floats, the mask is not one of booleans, or a temperature
        is not a number.
      ValueError: a shape is wrong, or a temperature is not positive.

    References:
      Zhou et al., iBOT: Image BERT Pre-Training with Online Tokenizer, 2021 (arXiv:2111.07832),
      eq. 3.
    """
    del axis_name  # rows are independent, and the center is whole
    scores, teacher_scores, center = check_floats(
        scores=(scores, "b N K"), teacher_scores=(teacher_scores, "b N K"), center=(center, "K")
    )
    mask = check_mask("mask", mask, *scores.shape[:2])
    check_positive("temperature", temperature)
    check_positive("teacher_temperature", teacher_temperature)
    centered = (teacher_scores - center[None, None]) / teacher_temperature
    assignments = jax.lax.stop_gradient(jax.nn.softmax(centered, axis=2))
    crossed = -jnp.sum(assignments * jax.nn.log_softmax(scores / temperature, axis=2), axis=2)
    masked = jnp.sum(jnp.where(mask, crossed, 0), axis=1)
    return jnp.mean(masked / jnp.maximum(jnp.sum(mask, axis=1), 1).astype(scores.dtype))
