"""Weighted k-nearest-neighbor classification by cosine, in bounded memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxclr.affinity import unit_rows
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_features, check_labeled, check_pair


def knn_accuracy(
    train_x: np.ndarray | Array,
    train_y: np.ndarray | Array,
    test_x: np.ndarray | Array,
    test_y: np.ndarray | Array,
    *,
    classes: int,
    k: int,
    temperature: float,
    tile: int = 1024,
) -> float:
    """Share of test rows whose class `knn_predict` names.

    Args:
      train_x: features, [N, D].
      train_y: their labels, [N], integers from 0 to classes - 1.
      test_x: features, [M, D].
      test_y: their labels, [M].
      classes: number of classes.
      k: number of neighbors.
      temperature: of the weights.
      tile: rows and columns compared at a time.

    Returns:
      Accuracy in [0, 1].

    Raises:
      UserError: k exceeds N, or a label is out of range.
      ValueError: shapes, types or hyper-parameters are wrong.
    """
    train_y, test_y = check_pair(train_x, train_y, test_x, test_y, classes)
    predicted = knn_predict(
        train_x, train_y, test_x, classes=classes, k=k, temperature=temperature, tile=tile
    )
    return float(np.mean(np.asarray(predicted) == test_y))


def knn_predict(
    train_x: np.ndarray | Array,
    train_y: np.ndarray | Array,
    test_x: np.ndarray | Array,
    *,
    classes: int,
    k: int,
    temperature: float,
    tile: int = 1024,
) -> Array:
    r"""Class with the largest sum of weights among the k train rows of largest cosine.

    .. math:: \hat y = \arg\max_c \sum_{i \in N_k(x)} [y_i = c] \, e^{(s_i - s_{\max}) / T},
              \qquad s_i = \frac{x \cdot x_i}{|x| \, |x_i|}

    Tiles of test rows are compared with tiles of train rows, and the nearest k so far are kept:
    beyond the features themselves this takes O(tile * (tile + k + D + classes)) memory. Among equal
    cosines the earlier train row is the nearer; among equal sums the lowest class wins.

    Args:
      train_x: features, [N, D], any float type; rows are normalized here, in float32.
      train_y: their labels, [N], integers from 0 to classes - 1.
      test_x: features, [M, D].
      classes: number of classes.
      k: number of neighbors.
      temperature: T; 0.07 in the reference.
      tile: rows and columns compared at a time.

    Returns:
      Predicted classes, int32 [M].

    Raises:
      UserError: k exceeds N, or a label is out of range.
      ValueError: shapes, types or hyper-parameters are wrong.

    References:
      Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018
      (arXiv:1805.01978), section 3.4.
    """
    train_y = check_labeled("train", train_x, train_y, classes)
    check_features("test_x", test_x)
    count = train_x.shape[0]
    check_neighbors(k, count)
    if k < 1 or tile < 1 or not temperature > 0:
        raise ValueError(
            f"k, tile and temperature must be positive, got {k}, {tile} and {temperature}."
        )
    return _predict(
        train_x,
        jnp.asarray(train_y),
        test_x,
        temperature,
        classes=classes,
        k=k,
        rows=min(tile, test_x.shape[0]),
        columns=min(tile, count),
    )


def check_neighbors(k: int, count: int) -> None:
    """Raises UserError if more neighbors are asked for than there are training rows."""
    if k > count:
        raise UserError(f"k = {k} neighbors of {count} training rows; set k to {count} or less.")


@functools.partial(jax.jit, static_argnames=("classes", "k", "rows", "columns"))
def _predict(train_x, train_y, test_x, temperature, *, classes, k, rows, columns):
    count, queries = train_x.shape[0], test_x.shape[0]

    def nearest(query: Array) -> tuple[Array, Array]:
        """The k largest cosines of each query, [rows, k], and the labels that go with them."""

        def merge(best, index):
            # The last tile is moved back to end with the last row; what it repeats is masked.
            start = jnp.minimum(index * columns, count - columns)
            keys = _as_unit(jax.lax.dynamic_slice_in_dim(train_x, start, columns))
            labels = jax.lax.dynamic_slice_in_dim(train_y, start, columns)
            cosines = jnp.matmul(query, keys.T, precision=jax.lax.Precision.HIGHEST)
            new = start + jnp.arange(columns) >= index * columns
            cosines = jnp.where(new[None], cosines, -jnp.inf)
            values = jnp.concatenate([best[0], cosines], axis=1)
            names = jnp.concatenate([best[1], jnp.broadcast_to(labels, cosines.shape)], axis=1)
            values, nearest = jax.lax.top_k(values, k)
            return (values, jnp.take_along_axis(names, nearest, axis=1)), None

        none = (jnp.full((rows, k), -jnp.inf), jnp.zeros((rows, k), jnp.int32))
        return jax.lax.scan(merge, none, jnp.arange(-(-count // columns)))[0]

    def classify(index, predictions):
        start = jnp.minimum(index * rows, queries - rows)
        query = _as_unit(jax.lax.dynamic_slice_in_dim(test_x, start, rows))
        cosines, labels = nearest(query)
        weights = jnp.exp((cosines - cosines[:, :1]) / temperature)
        votes = jnp.zeros((rows, classes)).at[jnp.arange(rows)[:, None], labels].add(weights)
        winners = jnp.argmax(votes, axis=1).astype(jnp.int32)
        return jax.lax.dynamic_update_slice_in_dim(predictions, winners, start, 0)

    tiles = -(-queries // rows)
    return jax.lax.fori_loop(0, tiles, classify, jnp.zeros(queries, jnp.int32))


def _as_unit(x: Array) -> Array:
    return unit_rows(x.astype(jnp.float32))
