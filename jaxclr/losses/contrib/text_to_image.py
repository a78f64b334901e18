"""Losses of similarity matrices, between images and texts."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_choice,
    check_floats,
    check_positive,
    gather_rows,
    row_ids,
)
from jaxclr.affinity.collectives import axis_size, scatter_sum

Array = jax.Array


def deep_boosting(
    similarity: Array,
    anchor_similarity: Array,
    *,
    margin: float | Array = 0.2,
    mode: Literal["absolute", "relative"] = "absolute",
    axis_name: AxisName = None,
) -> Array:
    r"""Hinge for a branch to separate pairs better than an earlier, constant branch (DBL).

    With the gain G = S - sg S', in absolute mode positives must gain and negatives must lose half
    of the margin each,

    .. math:: \sum_i \Big( 2 [\tfrac m2 - G_{ii}]_+ + \max_{j \ne i} [\tfrac m2 + G_{ij}]_+
       + \max_{j \ne i} [\tfrac m2 + G_{ji}]_+ \Big)

    and in relative mode their difference must grow by the margin:

    .. math:: \sum_i \Big( \max_{j \ne i} [m - G_{ii} + G_{ij}]_+
       + \max_{j \ne i} [m - G_{ii} + G_{ji}]_+ \Big)

    A sum, as in the official code: it grows with the batch. What it takes and holds is dense by
    nature, b x B on a device; the maxima of columns are over the rows of all devices. Equal largest
    values share the gradient.

    Needs: similarities of two branches.
    Cost: B².
    Global batch: maxima of columns.

    >>> similarity, earlier = jax.random.normal(jax.random.key(0), (2, 8, 8))
    >>> round(float(losses.deep_boosting(similarity, earlier)), 2)
    45.85

    Args:
      similarity: S, of this device's images with the texts of all devices, [b, B], any float dtype.
      anchor_similarity: S', of the earlier branch, [b, B]; it receives no gradient.
      margin: m; positive.
      mode: "absolute" or "relative".
      axis_name: mapped axis over which the rows are spread; None if these are all of them.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or margin is not a number.
      ValueError: shapes differ, rows and columns of the global batch are not as many, margin is not
        positive, or mode is unknown.

    References:
      Diao et al., Deep Boosting Learning: A Brand-new Cooperative Approach for Image-Text Matching,
      2024 (arXiv:2404.18114).
    """
    similarity, anchor = check_floats(
        similarity=(similarity, "b B"), anchor_similarity=(anchor_similarity, "b B")
    )
    check_positive("margin", margin)
    check_choice("mode", mode, ("absolute", "relative"))
    if similarity.shape[1] != batch_size(similarity, axis_name):
        raise ValueError(
            f"similarity must be [b, B] with a column for each of the "
            f"{batch_size(similarity, axis_name)} rows of the global batch, "
            f"got shape {similarity.shape}."
        )
    gain = similarity - jax.lax.stop_gradient(anchor)
    index = row_ids(gain, axis_name)
    positive = jnp.take_along_axis(gain, index[:, None], axis=1)[:, 0]
    own = index[:, None] == jnp.arange(gain.shape[1], dtype=index.dtype)[None, :]
    negatives = jnp.where(own, -jnp.inf, gain)
    of_row, of_column = jnp.max(negatives, axis=1), _largest_of_columns(negatives, axis_name)
    hinge = lambda x: jnp.maximum(x, jnp.zeros_like(x))
    if mode == "absolute":
        half = margin / 2
        each = 2 * hinge(half - positive) + hinge(half + of_row) + hinge(half + of_column)
    else:
        each = hinge(margin - positive + of_row) + hinge(margin - positive + of_column)
    return axis_size(axis_name) * jnp.sum(each)


def _largest_of_columns(values: Array, axis_name: AxisName) -> Array:
    """Maxima of [b, B] over the rows of all devices, [b], for the columns of this device's rows.

    A maximum over devices has no gradient of its own: here each device adds its part of it, by how
    many of the equal largest values it holds, so that these share the gradient as if all rows were
    on one device.
    """
    largest = jnp.max(values, axis=0)
    ties = jnp.sum((values == largest[None]).astype(values.dtype), axis=0)
    of_devices, every = (
        gather_rows(jax.lax.stop_gradient(of)[None], axis_name) for of in (largest, ties)
    )
    held = of_devices == jnp.max(of_devices, axis=0, keepdims=True)
    part = ties / jnp.sum(jnp.where(held, every, jnp.zeros_like(every)), axis=0)
    mine = largest == jnp.max(of_devices, axis=0)
    return scatter_sum(jnp.where(mine, part * largest, jnp.zeros_like(largest)), axis_name)
