"""A loss of prototypes averaged from the batch: their alignment, uniformity and correlation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_floats,
    check_ids,
    check_positive,
    gather_rows,
    row_ids,
    row_logsumexp,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.collectives import scatter_sum
from jaxclr.losses.redundancy import cross_correlation, from_identity

Array = jax.Array


def pauc(
    q1: Array,
    q2: Array,
    prototypes: Array,
    assignments: Array,
    *,
    alignment: float | Array = 1.0,
    uniformity: float | Array = 1.0,
    correlation: float | Array = 1.0,
    t: float | Array = 2.0,
    off_diagonal: float | Array = 0.0051,
    axis_name: AxisName = None,
) -> Array:
    r"""Alignment with prototypes, uniformity of batch prototypes, decorrelation (after PAUC).

    A reconstruction: the paper's abstract names these three terms; their form and their weights
    here are guesses. They are to be added to `info_nce` or `proto_nce`.

    .. math:: \frac12 \sum_{v} \left[ \frac{\lambda_a}{B} \sum_i
       \|\hat q_{vi} - \operatorname{sg} \hat c_{a_i}\|^2
       + \lambda_u \log \frac{1}{n(n-1)} \sum_{k \ne l} e^{-t \|p_{vk} - p_{vl}\|^2} \right]
       + \lambda_c \left[ \sum_d (C_{dd} - 1)^2 + \lambda \sum_{d \ne e} C_{de}^2 \right]

    where p is the unit mean of the rows that are assigned to one of the n prototypes present in the
    global batch, and C the cross-correlation of the two views' p over these, as in `barlow_twins`.
    The uniformity of fewer than two is 0. O(n^2 D + n D^2), divided among devices.

    Needs: prototypes, assignments.
    Cost: K²D + KD².
    Global batch: means by prototype.

    >>> q1, q2, prototypes = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.pauc(q1, q2, prototypes, jnp.arange(8))), 2)
    2.57

    Args:
      q1: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      q2: embeddings of the other view, [b, D].
      prototypes: c, centroids of a clustering, [K, D], the same on every device; no gradient.
      assignments: a [b], the prototype of each image.
      alignment: lambda_a; zero or more.
      uniformity: lambda_u; zero or more.
      correlation: lambda_c; zero or more.
      t: of the uniformity's kernel; positive.
      off_diagonal: lambda; zero or more.
      axis_name: mapped axis over which the batch is spread; None if q1 and q2 are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or of integers, or a hyper-parameter is not a
        number.
      ValueError: shapes do not fit, an assignment is no prototype, or a hyper-parameter is out of
        range.

    References:
      Mo, Sun and Li, Rethinking Prototypical Contrastive Learning through Alignment, Uniformity and
      Correlation, 2022 (arXiv:2210.10194), abstract.
    """
    q1, q2, prototypes = check_floats(
        q1=(q1, "b D"), q2=(q2, "b D"), prototypes=(prototypes, "K D")
    )
    assignments = check_ids("assignments", assignments, q1.shape[0], below=prototypes.shape[0])
    weights = {"alignment": alignment, "uniformity": uniformity, "correlation": correlation}
    for name, value in {**weights, "off_diagonal": off_diagonal}.items():
        check_positive(name, value, zero=True)
    check_positive("t", t)

    q1, q2 = unit_rows(q1), unit_rows(q2)
    assigned = jax.lax.stop_gradient(unit_rows(prototypes)[assignments])
    distance = lambda q: jnp.mean(jnp.sum((q - assigned) ** 2, axis=1))
    (p1, p2), real = _batch_prototypes((q1, q2), assignments, prototypes.shape[0], axis_name)
    decorrelation = from_identity(
        cross_correlation(p1, p2, real=real, axis_name=axis_name), off_diagonal
    )
    uniform = _uniformity(p1, real, t, axis_name) + _uniformity(p2, real, t, axis_name)
    aligned = distance(q1) + distance(q2)
    return alignment / 2 * aligned + uniformity / 2 * uniform + correlation * decorrelation


def _batch_prototypes(
    views: Sequence[Array], assignments: Array, count: int, axis_name: AxisName
) -> tuple[list[Array], Array]:
    """Unit means of each view's rows by assignment, [n, D] on each device; which are real, [n]."""
    size = batch_size(assignments, axis_name)
    devices = size // assignments.shape[0]
    each = -(-min(count, size) // devices)
    present = jnp.unique(gather_rows(assignments, axis_name), size=each * devices, fill_value=count)
    index = jnp.searchsorted(present, assignments)

    def means(rows: Array) -> Array:
        sums = jax.ops.segment_sum(rows, index, each * devices)
        return unit_rows(scatter_sum(sums, axis_name))

    own = row_ids(jnp.zeros(each), axis_name)
    return [means(rows) for rows in views], present[own] < count


def _uniformity(unit: Array, real: Array, t: float | Array, axis_name: AxisName) -> Array:
    """Log-mean-exp over pairs of real rows of -t times their squared distance; 0 without pairs."""
    ids = row_ids(unit, axis_name)
    absent = jnp.where(real, jnp.zeros_like(unit[:, 0]), -jnp.inf)
    of_rows = row_logsumexp(
        2 * t * unit, unit, exclude=(ids, ids), column_bias=absent, axis_name=axis_name
    )
    count = sum_over(jnp.sum(real, dtype=unit.dtype), axis_name)
    some = count > 1
    of_rows = jnp.where(some, of_rows + absent, jnp.zeros_like(of_rows))
    pairs = jnp.where(some, count * (count - 1), jnp.ones_like(count))
    total = jax.nn.logsumexp(gather_rows(of_rows, axis_name))
    return jnp.where(some, total - 2 * t - jnp.log(pairs), jnp.zeros_like(total))
