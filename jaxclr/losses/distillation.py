"""Losses of the scores of a student and of a teacher whose assignments are balanced by a center."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_floats,
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
