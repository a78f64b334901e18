"""Losses of points sampled from scenes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    check_floats,
    check_ids,
    check_mask,
    check_positive,
    row_ids,
    row_max,
    row_sum,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.collectives import axis_size

Array = jax.Array


def region_contrast(
    features: Array,
    segments: Array,
    foreground: Array,
    *,
    temperature: float | Array = 0.1,
    axis_name: AxisName = None,
) -> Array:
    r"""Supervised contrast of foreground points: their segment against the background (FAC).

    .. math:: \frac{1}{|F|} \sum_{i \in F} \Big[ \log \sum_{j \in P(i) \cup G} e^{s_{ij}}
       - \frac{1}{|P(i)|} \sum_{j \in P(i)} s_{ij} \Big],
       \qquad s = \hat Z \hat Z^\top / \tau

    F is the foreground, G the background and P(i) the other foreground points of the segment of i;
    points of other foreground segments are neither positive nor negative. A point without positives
    counts 0.

    A reconstruction: the published code has no such loss, and this is read from the paper's idea;
    its learned choice of pairs across views is left out.

    Needs: points, segments, foreground.
    Cost: P²D.
    Global batch: row sums over all columns.

    >>> features = jax.random.normal(jax.random.key(0), (8, 4))
    >>> round(float(losses.region_contrast(features, jnp.arange(8) % 4, jnp.ones(8, bool))), 2)
    0.0

    Args:
      features: Z, of the points of both views of a scene, [P, D], any float dtype; rows are
        normalized here.
      segments: integers [P], the segment of each point; equal in both views, and unique among the
        scenes of all devices.
      foreground: booleans [P]; a segment's background points are no positives.
      temperature: tau; positive.
      axis_name: mapped axis over which the points are spread; None if these are all of them.

    Returns:
      This device's share of the loss; its mean over devices is the loss of all points. Without any
      foreground it is 0.

    Raises:
      TypeError: features is not an array of floats, segments none of integers, foreground none of
        booleans, or temperature is not a number.
      ValueError: shapes do not fit, or temperature is not positive.

    References:
      Liu et al., FAC: 3D Representation Learning via Foreground Aware Feature Contrast, 2023
      (arXiv:2303.06388).
    """
    (features,) = check_floats(features=(features, "P D"))
    segments = check_ids("segments", segments, len(features))
    foreground = check_mask("foreground", foreground, len(features))
    check_positive("temperature", temperature)
    rows = unit_rows(features)
    index = row_ids(rows, axis_name)
    options: dict[str, Any] = {"exclude": (index, index), "axis_name": axis_name}

    def allowed(products: Array, own: Array, other: Array, other_foreground: Array) -> Array:
        return jnp.where((own == other) | ~other_foreground, products, -jnp.inf)

    def sums(products: Array, shift: Array, own: Array, other: Array, other_foreground: Array):
        logits = allowed(products, own, other, other_foreground)
        same = ((own == other) & other_foreground).astype(products.dtype)
        return jnp.exp(logits - shift), same * products, same

    scaled, column_values = rows / temperature, (segments, foreground)
    shift = row_max(
        allowed, scaled, rows, row_values=(segments,), column_values=column_values, **options
    ).value
    shift = jnp.where(jnp.isneginf(shift), jnp.zeros_like(shift), shift)
    total, matched, count = row_sum(
        sums, scaled, rows, row_values=(shift, segments), column_values=column_values, **options
    )
    counts = foreground & (count > 0)
    ones = jnp.ones_like(total)
    each = (
        jnp.log(jnp.where(counts, total, ones)) + shift - matched / jnp.where(counts, count, ones)
    )
    anchors = sum_over(jnp.sum(foreground.astype(rows.dtype)), axis_name)
    local = jnp.sum(jnp.where(counts, each, jnp.zeros_like(each)))
    return axis_size(axis_name) * local / jnp.maximum(anchors, jnp.ones_like(anchors))
