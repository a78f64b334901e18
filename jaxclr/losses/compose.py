"""Losses put together from a transform, a readout and a regulariser of the affinity matrix.

A transform turns two views into an `Affinity`, rows and columns whose inner products are the matrix; a readout or a
regulariser turns that into a scalar. Each is a plain function with `axis_name`: write your own, or take these, with
`functools.partial` for their settings.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_embeddings,
    check_positive,
    moments,
    pair_sum,
    positives,
    row_ids,
    row_logsumexp,
    sum_over,
    unit_rows,
    whiten,
)
from jaxclr.affinity import asymmetry as asymmetry_of

Array = jax.Array
Ids = tuple[Array, Array]


class Affinity(NamedTuple):
    """Rows and columns of the affinity matrix on this device, row i and column i being views of one image.

    Attributes:
      rows: [n, D].
      columns: [n, D].
      images: the image in the global batch of each row and each column, int32 ([n], [n]).
      itself: ids ([n], [n]), equal where a column is the row itself; None if no column is any row.
    """

    rows: Array
    columns: Array
    images: Ids
    itself: Ids | None = None


class Transform(Protocol):
    """(q [b, D], k [b, D]) to their affinity."""

    def __call__(self, q: Array, k: Array, *, axis_name: AxisName) -> Affinity: ...


class Readout(Protocol):
    """An affinity to this device's share of a scalar; logits are inner products over the temperature."""

    def __call__(
        self, affinity: Affinity, *, temperature: float | Array, axis_name: AxisName
    ) -> Array: ...


def affinity_loss(
    q: Array,
    k: Array,
    *,
    transform: Transform | None = None,
    readout: Readout | None = None,
    regularizer: Readout | None = None,
    regularizer_weight: float | Array = 1.0,
    temperature: float | Array = 1.0,
    axis_name: AxisName = None,
) -> Array:
    r"""A readout of the affinity matrix of two views plus a weighted regulariser: the form of most objectives.

    .. math:: F(A) + \gamma R(A), \qquad A = (Q - \mu) P (K - \mu)^\top / \tau, \quad P = I \text{ or } \Sigma^{-1}

    Args:
      q: embeddings of one view, [b, D], any float dtype.
      k: embeddings of the other view, [b, D]; gradients reach them unless the caller stops them.
      transform: what the matrix is of: `unit` (None), `whitened`, `both_views` of either, or another.
      readout: what is minimised of it: `cross_entropy` (None), `decoupled`, `binary`, `trace`, `squared_distance`, or another.
      regularizer: what is added: `asymmetry`, `squared_distance`, or any other readout; None for nothing.
      regularizer_weight: gamma; zero or more.
      temperature: tau; positive.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the global batch.

    Raises:
      TypeError: q or k is no array of floats, or a hyper-parameter no number.
      ValueError: q and k differ in shape or are no matrices, or a hyper-parameter is out of range.

    References:
      Li et al., A Unified Framework for Contrastive Learning from a Perspective of Affinity Matrix, 2022
      (arXiv:2211.14516).
    """
    q, k = check_embeddings(q=q, k=k)
    check_positive("temperature", temperature)
    check_positive("regularizer_weight", regularizer_weight, zero=True)
    affinity = (transform or unit)(q, k, axis_name=axis_name)
    read = functools.partial(readout or cross_entropy, temperature=temperature, axis_name=axis_name)
    loss = read(affinity)
    if regularizer is None:
        return loss
    added = regularizer(affinity, temperature=temperature, axis_name=axis_name)
    return loss + regularizer_weight * added


def unit(q: Array, k: Array, *, axis_name: AxisName) -> Affinity:
    """Rows of unit length: inner products are cosines."""
    images = row_ids(q, axis_name)
    return Affinity(unit_rows(q), unit_rows(k), (images, images))


def whitened(
    q: Array,
    k: Array,
    *,
    eps: float | Array = 0.01,
    normalize: bool = True,
    per_view: bool = False,
    stop_statistics: bool = False,
    axis_name: AxisName,
) -> Affinity:
    """Centred rows whitened by the covariance of the global batch.

    Args:
      q, k: [b, D].
      eps: ridge added to the covariance; positive, or 0 where the batch has more rows than D.
      normalize: whether rows are first given unit length.
      per_view: whether each view is centred and whitened by itself (W-MSE), or both by what they have in common (UniCLR).
      stop_statistics: hold mean and covariance constant in the gradient.
      axis_name: mapped axis over which the batch is spread.
    """
    check_positive("eps", eps, zero=True)
    if normalize:
        q, k = unit_rows(q), unit_rows(k)
    groups = ((q,), (k,)) if per_view else ((q, k),)
    found = []
    for group in groups:
        mean, covariance = moments(*group, axis_name=axis_name)
        if stop_statistics:
            mean, covariance = jax.lax.stop_gradient((mean, covariance))
        found += whiten(*group, mean=mean, covariance=covariance, ridge=eps)
    images = row_ids(q, axis_name)
    return Affinity(*found, (images, images))


def both_views(transform: Transform) -> Transform:
    """The transform with every row of either view as a row: its columns are those of the other view and of its own."""

    def stacked(q: Array, k: Array, *, axis_name: AxisName) -> Affinity:
        one = transform(q, k, axis_name=axis_name)
        of_rows, of_columns = (jnp.concatenate([ids, ids]) for ids in one.images)
        # Rows and columns are numbered alike, by image and view: column i is the partner of row i.
        count = batch_size(q, axis_name)
        first, second = one.images[0], one.images[1] + count
        itself = (jnp.concatenate([first, second]), jnp.concatenate([second, first]))
        rows = jnp.concatenate([one.rows, one.columns])
        columns = jnp.concatenate([one.columns, one.rows])
        return Affinity(rows, columns, (of_rows, of_columns), itself)

    return stacked


def cross_entropy(
    affinity: Affinity, *, temperature: float | Array, axis_name: AxisName
) -> Array:
    r"""InfoNCE: :math:`\frac1n \sum_i [\log \sum_j e^{A_{ij}} - A_{ii}]`, without a row's column of itself."""
    rows = affinity.rows / temperature
    spread = row_logsumexp(rows, affinity.columns, exclude=affinity.itself, axis_name=axis_name)
    return jnp.mean(spread - positives(rows, affinity.columns))


def decoupled(affinity: Affinity, *, temperature: float | Array, axis_name: AxisName) -> Array:
    r"""DCL: :math:`\frac1n \sum_i [\log \sum_{j \ne i} e^{A_{ij}} - A_{ii}]`, without any column of the row's image.

    It wants a global batch of two images or more.
    """
    rows = affinity.rows / temperature
    spread = row_logsumexp(rows, affinity.columns, exclude=affinity.images, axis_name=axis_name)
    return jnp.mean(spread - positives(rows, affinity.columns))


def binary(affinity: Affinity, *, temperature: float | Array, axis_name: AxisName) -> Array:
    r"""Mean softplus of the negated positives plus mean softplus of the negatives (MIO).

    .. math:: \frac1n \sum_i \log(1 + e^{-A_{ii}}) + \frac1N \sum_{i,j} \log(1 + e^{A_{ij}})

    over the N pairs of different images.
    """
    rows = affinity.rows / temperature
    attraction = jnp.mean(jax.nn.softplus(-positives(rows, affinity.columns)))
    both = lambda logits: (jax.nn.softplus(logits), jnp.ones_like(logits))
    total, count = sum_over(
        pair_sum(both, rows, affinity.columns, exclude=affinity.images, axis_name=axis_name),
        axis_name,
    )
    return attraction + total / jnp.maximum(count, jnp.ones_like(count))


def trace(affinity: Affinity, *, temperature: float | Array, axis_name: AxisName) -> Array:
    r"""Negative mean of the positives: :math:`-\frac1n \operatorname{tr} A` (SimTrace, SimSiam)."""
    del axis_name  # rows stand alone
    return -jnp.mean(positives(affinity.rows, affinity.columns)) / temperature


def squared_distance(
    affinity: Affinity, *, temperature: float | Array, axis_name: AxisName
) -> Array:
    r"""Mean squared distance of positives, :math:`\frac1n \sum_i \|x_i - y_i\|^2` (BYOL, W-MSE), whatever the temperature."""
    del temperature, axis_name
    return jnp.mean(jnp.sum((affinity.rows - affinity.columns) ** 2, axis=1))


def asymmetry(affinity: Affinity, *, temperature: float | Array, axis_name: AxisName) -> Array:
    r"""UniCLR's symmetric loss :math:`\|A - A^\top\|_F` of two views, from D x D Grams."""
    return asymmetry_of(affinity.rows, affinity.columns, axis_name=axis_name) / temperature


def of_embeddings(loss: Callable[..., Array], **settings: object) -> Readout:
    """A loss(q, k, ..., axis_name=...) of two views, with settings of its own, as a readout or regulariser."""

    def read(affinity: Affinity, *, temperature: float | Array, axis_name: AxisName) -> Array:
        del temperature
        return loss(affinity.rows, affinity.columns, **settings, axis_name=axis_name)

    return read
