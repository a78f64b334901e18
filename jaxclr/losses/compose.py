"""Losses composed of a transform, a readout and a regularizer of the affinity matrix.

A transform turns two views into an `Affinity`: rows and columns whose inner products are the
entries of the matrix. A readout turns the affinity into a scalar; a regularizer is a readout that
is added with a weight. Each is a plain function: bind its settings with `functools.partial`, or
write another of the same signature. A readout gets
temperature and axis_name, and implementation if that is not "auto"; it ignores what it does not use
by `**_`::

    loss = functools.partial(
        losses.affinity_loss, transform=compose.whitened, regularizer=compose.asymmetry
    )

Transforms: `unit`, `whitened`, `both_views`. Readouts and regularizers: `cross_entropy`,
`decoupled`, `binary`, `trace`, `squared_distance`, `asymmetry`, `of_embeddings`.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_choice,
    check_embeddings,
    check_positive,
    contrast,
    moments,
    pair_sum,
    positives,
    row_ids,
    row_logsumexp,
    sum_over,
    unit_rows,
    whiten,
)
from jaxclr.affinity import asymmetry as asymmetry_norm

Array = jax.Array
Ids = tuple[Array, Array]
SymmetryScale = Literal["frobenius", "per_sample"]
SYMMETRY_SCALES = get_args(SymmetryScale)


class Affinity(NamedTuple):
    """Rows and columns of the affinity matrix on this device; those with index i show one image.

    Attributes:
      rows: [n, D].
      columns: [n, D].
      images: batch index of the image of each row and of each column, int32 ([n], [n]).
      itself: ids ([n], [n]), equal where a column is the row itself; None if no column is any row.
    """

    rows: Array
    columns: Array
    images: Ids
    itself: Ids | None = None


class Transform(Protocol):
    """Turns q [b, D] and k [b, D] into their affinity."""

    def __call__(self, q: Array, k: Array, *, axis_name: AxisName) -> Affinity: ...


class Readout(Protocol):
    """Turns an affinity into this device's share of a scalar, at logits <row, column> / tau."""

    def __call__(
        self,
        affinity: Affinity,
        *,
        temperature: float | Array,
        implementation: Implementation = "auto",
        axis_name: AxisName,
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
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""A readout of the affinity matrix of two views plus a weighted regularizer.

    .. math:: F(A) + \gamma R(A), \qquad A = (Q - \mu) P (K - \mu)^\top / \tau,
       \quad P = I \text{ or } \Sigma^{-1}

    Needs: a transform, a readout, a regularizer.
    Cost: of its parts.
    Global batch: of its parts.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> whitened, trace = losses.compose.whitened, losses.compose.trace
    >>> round(float(losses.affinity_loss(q, k, transform=whitened, readout=trace)), 2)
    -0.82

    Args:
      q: embeddings of one view, [b, D], any float dtype.
      k: embeddings of the other view, [b, D]; gradients reach them unless the caller stops them.
      transform: `compose.unit` (None), `whitened`, `both_views` of either, or another.
      readout: `compose.cross_entropy` (None), `decoupled`, `binary`, `trace`, `squared_distance`,
        or another.
      regularizer: `compose.asymmetry`, `squared_distance`, or any other readout; None for no
        regularizer.
      regularizer_weight: gamma; zero or more. A Python zero leaves the regularizer out.
      temperature: tau; positive.
      implementation: as of `jaxclr.affinity.row_logsumexp`; readouts get it unless it is "auto".
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: q or k is not an array of floats, or a hyper-parameter is not a number.
      ValueError: q and k differ in shape or are not matrices, or a hyper-parameter is out of range.

    References:
      Li et al., A Unified Framework for Contrastive Learning from a Perspective of Affinity Matrix,
      2022 (arXiv:2211.14516).
    """
    q, k = check_embeddings(q=q, k=k)
    check_positive("temperature", temperature)
    check_positive("regularizer_weight", regularizer_weight, zero=True)
    affinity = (transform or unit)(q, k, axis_name=axis_name)
    options: dict[str, Any] = {"temperature": temperature, "axis_name": axis_name}
    if implementation != "auto":  # else a readout need not know of it
        options["implementation"] = implementation
    loss = (readout or cross_entropy)(affinity, **options)
    unweighted = isinstance(regularizer_weight, (int, float)) and regularizer_weight == 0
    if regularizer is None or unweighted:
        return loss
    return loss + regularizer_weight * regularizer(affinity, **options)


def unit(q: Array, k: Array, *, axis_name: AxisName) -> Affinity:
    """Transform: rows of unit length. Inner products are cosines."""
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
    """Transform: rows centered and whitened by mean and covariance of the global batch.

    Args:
      q: [b, D].
      k: [b, D].
      eps: added to the diagonal of the covariance; positive, or 0 where the batch has more rows
        than D.
      normalize: give rows unit length first.
      per_view: whiten each view by its own statistics (W-MSE) instead of both by common ones
        (UniCLR).
      stop_statistics: hold mean and covariance constant in the gradient.
      axis_name: mapped axis over which the batch is spread.
    """
    check_positive("eps", eps, zero=True)
    if normalize:
        q, k = unit_rows(q), unit_rows(k)
    groups = ((q,), (k,)) if per_view else ((q, k),)
    sides: list[Array] = []
    for group in groups:
        mean, covariance = moments(*group, axis_name=axis_name)
        if stop_statistics:
            mean, covariance = jax.lax.stop_gradient((mean, covariance))
        sides += whiten(*group, mean=mean, covariance=covariance, eps=eps)
    images = row_ids(q, axis_name)
    rows, columns = sides
    return Affinity(rows, columns, (images, images))


def both_views(transform: Transform) -> Transform:
    """Transform with the rows of both views as rows; the columns are the same rows."""

    def stacked(q: Array, k: Array, *, axis_name: AxisName) -> Affinity:
        one = transform(q, k, axis_name=axis_name)
        row_images, column_images = (jnp.concatenate([ids, ids]) for ids in one.images)
        # Ids number rows and columns by image and view. Column i is the partner of row i.
        count = batch_size(q, axis_name)
        first, second = one.images[0], one.images[1] + count
        itself = (jnp.concatenate([first, second]), jnp.concatenate([second, first]))
        rows = jnp.concatenate([one.rows, one.columns])
        columns = jnp.concatenate([one.columns, one.rows])
        return Affinity(rows, columns, (row_images, column_images), itself)

    return stacked


def cross_entropy(
    affinity: Affinity,
    *,
    temperature: float | Array,
    implementation: Implementation = "auto",
    axis_name: AxisName,
) -> Array:
    r"""InfoNCE: :math:`\frac1n \sum_i [\log \sum_j e^{A_{ij}} - A_{ii}]`.

    A row is never its own column; where rows are columns too, no other column of the row's image
    counts either.
    """
    ids = row_ids(affinity.rows, axis_name)
    exclude = (ids, ids) if affinity.itself is None else affinity.images
    sides = _sides(affinity, exclude, temperature, implementation, axis_name)
    return jnp.mean(contrast(*sides))


def decoupled(
    affinity: Affinity,
    *,
    temperature: float | Array,
    implementation: Implementation = "auto",
    axis_name: AxisName,
) -> Array:
    r"""DCL: :math:`\frac1n \sum_i [\log \sum_{j \ne i} e^{A_{ij}} - A_{ii}]`.

    The sum leaves out every column of the row's image. The global batch must hold at least two
    images.
    """
    positive, negatives = _sides(affinity, affinity.images, temperature, implementation, axis_name)
    return jnp.mean(negatives - positive)


def binary(
    affinity: Affinity, *, temperature: float | Array, axis_name: AxisName, **_: Any
) -> Array:
    r"""Mean softplus of the negated positives plus mean softplus of the negatives (MIO).

    .. math:: \frac1n \sum_i \log(1 + e^{-A_{ii}}) + \frac1N \sum_{i,j} \log(1 + e^{A_{ij}})

    The second sum runs over the N pairs of different images.
    """
    rows = affinity.rows / temperature
    attraction = jnp.mean(jax.nn.softplus(-positives(rows, affinity.columns)))
    value_and_count = lambda logits: (jax.nn.softplus(logits), jnp.ones_like(logits))
    total, count = sum_over(
        pair_sum(
            value_and_count, rows, affinity.columns, exclude=affinity.images, axis_name=axis_name
        ),
        axis_name,
    )
    return attraction + total / jnp.maximum(count, jnp.ones_like(count))


def trace(affinity: Affinity, *, temperature: float | Array, **_: Any) -> Array:
    r"""Negative mean of the positives: :math:`-\frac1n \operatorname{tr} A` (SimTrace, SimSiam)."""
    return -jnp.mean(positives(affinity.rows, affinity.columns)) / temperature


def squared_distance(affinity: Affinity, **_: Any) -> Array:
    r"""Mean squared distance of positives, :math:`\frac1n \sum_i \|x_i - y_i\|^2` (BYOL, W-MSE).

    The temperature does not enter.
    """
    return jnp.mean(jnp.sum((affinity.rows - affinity.columns) ** 2, axis=1))


def asymmetry(
    affinity: Affinity,
    *,
    scale: SymmetryScale = "frobenius",
    temperature: float | Array,
    axis_name: AxisName,
    **_: Any,
) -> Array:
    r"""UniCLR's symmetric loss :math:`\|A - A^\top\|_F` of two views, from D x D Grams.

    The scale "frobenius" is the norm as written, which grows with the batch. "per_sample" divides
    it by the number of rows of the global batch.
    """
    check_choice("scale", scale, SYMMETRY_SCALES)
    norm = asymmetry_norm(affinity.rows, affinity.columns, axis_name=axis_name)
    if scale == "per_sample":
        norm = norm / batch_size(affinity.rows, axis_name)
    return norm / temperature


def of_embeddings(loss: Callable[..., Array], **settings: Any) -> Readout:
    """The loss(q, k, **settings, axis_name=...) of two views as a readout or regularizer."""

    def read(affinity: Affinity, *, axis_name: AxisName, **_: Any) -> Array:
        return loss(affinity.rows, affinity.columns, **settings, axis_name=axis_name)

    return read


def _sides(
    affinity: Affinity,
    exclude: Ids,
    temperature: float | Array,
    implementation: Implementation,
    axis_name: AxisName,
) -> tuple[Array, Array]:
    """Of each row: its positive, and the log-sum-exp of the columns that are not excluded."""
    rows, columns = affinity.rows, affinity.columns
    negatives = row_logsumexp(
        rows / temperature,
        columns,
        exclude=exclude,
        implementation=implementation,
        axis_name=axis_name,
    )
    return positives(rows, columns) / temperature, negatives
