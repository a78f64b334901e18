"""Weighted k-nearest-neighbor classification by cosine, in bounded memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxclr.affinity import AxisName, gather_rows, row_ids, unit_rows
from jaxclr.affinity.collectives import each_shard
from jaxclr.affinity.tiles import fold, join, tiling
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_features, check_labeled, check_pair
from jaxclr.evaluation.features import mesh_of, shard_rows


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
      train_y: their labels, [N], integers from 0 to classes - 1; -1 leaves a row out.
      test_x: features, [M, D].
      test_y: their labels, [M], likewise.
      classes: number of classes.
      k: number of neighbors.
      temperature: of the weights.
      tile: rows and columns compared at a time.

    Returns:
      Accuracy in [0, 1].

    Raises:
      UserError: k exceeds the number of training rows, or a label is out of range.
      ValueError: shapes, types or hyper-parameters are wrong.
    """
    train_y, test_y = check_pair(train_x, train_y, test_x, test_y, classes)
    predicted = knn_predict(
        train_x, train_y, test_x, classes=classes, k=k, temperature=temperature, tile=tile
    )
    return float(np.mean((np.asarray(predicted) == test_y)[test_y >= 0]))


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
    beyond the features themselves this takes O(tile * (tile + k + D + classes) + M k) memory. Among
    equal cosines the earlier train row is the nearer; among equal sums the lowest class wins.

    Features that are sharded by rows over devices stay there: each device keeps its test rows, and
    the shards of train rows travel round a ring.

    Args:
      train_x: features, [N, D], any float type; rows are normalized here, in float32.
      train_y: their labels, [N], integers from 0 to classes - 1; -1 leaves a row out.
      test_x: features, [M, D].
      classes: number of classes.
      k: number of neighbors.
      temperature: T; 0.07 in the reference.
      tile: rows and columns compared at a time.

    Returns:
      Predicted classes, int32 [M].

    Raises:
      UserError: k exceeds the number of training rows, or a label is out of range.
      ValueError: shapes, types or hyper-parameters are wrong.

    References:
      Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018
      (arXiv:1805.01978), section 3.4.
    """
    train_y = check_labeled("train", train_x, train_y, classes)
    check_features("test_x", test_x)
    check_neighbors(k, int(np.sum(train_y >= 0)))
    if k < 1 or tile < 1 or not temperature > 0:
        raise ValueError(
            f"k, tile and temperature must be positive, got {k}, {tile} and {temperature}."
        )
    queries, mesh = test_x.shape[0], mesh_of(train_x, test_x)
    if mesh is not None:
        train_x, test_x = shard_rows(train_x, mesh), shard_rows(test_x, mesh)
        train_y = shard_rows(train_y, mesh, fill=-1)
    settings = {"classes": classes, "k": k, "tile": tile, "mesh": mesh}
    return _predict(train_x, train_y, test_x, temperature, **settings)[:queries]


def check_neighbors(k: int, count: int) -> None:
    """Raises UserError if more neighbors are asked for than there are training rows."""
    if k > count:
        raise UserError(f"k = {k} neighbors of {count} training rows; set k to {count} or less.")


@functools.partial(jax.jit, static_argnames=("classes", "k", "tile", "mesh"))
def _predict(train_x, train_y, test_x, temperature, *, classes, k, tile, mesh: Mesh | None):
    vote = functools.partial(_vote, classes=classes, k=k, tile=tile)
    if mesh is None:
        return vote(train_x, train_y, test_x, temperature, axis_name=None)
    (axis_name,) = mesh.axis_names
    mapped = jax.shard_map(
        functools.partial(vote, axis_name=axis_name),
        mesh=mesh,
        in_specs=(P(axis_name), P(axis_name), P(axis_name), P()),
        out_specs=P(),
        check_vma=False,
    )
    return mapped(train_x, train_y, test_x, temperature)


def _vote(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    temperature: Array,
    *,
    classes: int,
    k: int,
    tile: int,
    axis_name: AxisName,
) -> Array:
    """Classes of the test rows of all devices, int32 [M], by the train rows of all devices."""
    count = test_x.shape[0]
    queries = fold(test_x, tiling(count, tile))
    # The nearest of own and earlier shards, and those of later ones.
    shape = (queries.shape[0], 2, queries.shape[1], k)
    device = row_ids(jnp.zeros(1), axis_name)

    def visit(best: tuple, shard: tuple) -> tuple[tuple, tuple]:
        keys, labels, owner = shard
        group = (owner > device)[0].astype(jnp.int32)
        before = jax.tree.map(lambda leaf: leaf[:, group], best)

        def one_tile(inputs):
            # In a ring, shards come from the last row to the first, in each of the two groups.
            query, before = inputs
            return _merge(_nearest(_as_unit(query), keys, labels, k, tile), before, k)

        after = jax.lax.map(one_tile, (queries, before))
        return jax.tree.map(lambda leaf, new: leaf.at[:, group].set(new), best, after), shard

    def winners(inputs: tuple) -> Array:
        earlier, later = zip(*inputs, strict=True)
        cosines, labels = _merge(earlier, later, k)
        weights = jnp.exp((cosines - cosines[:, :1]) / temperature)
        votes = jnp.zeros((len(labels), classes))
        votes = votes.at[jnp.arange(len(labels))[:, None], labels].add(weights)
        return jnp.argmax(votes, axis=1).astype(jnp.int32)

    best = jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32)
    best, _ = each_shard(visit, best, (train_x, train_y, device), axis_name, ring=True)
    return gather_rows(join(jax.lax.map(winners, best), count), axis_name)


Neighbors = tuple[Array, Array]  # cosines, the largest first, and labels, [rows, k]


def _nearest(query: Array, keys: Array, labels: Array, k: int, tile: int) -> Neighbors:
    """The nearest keys of unit queries, a tile of keys at a time."""
    count, columns = keys.shape[0], min(tile, keys.shape[0])

    def visit(best: Neighbors, index: Array) -> tuple[Neighbors, None]:
        # The last tile is moved back to end with the last row; what it repeats is masked.
        start = jnp.minimum(index * columns, count - columns)
        some = _as_unit(jax.lax.dynamic_slice_in_dim(keys, start, columns))
        names = jax.lax.dynamic_slice_in_dim(labels, start, columns)
        cosines = jnp.matmul(query, some.T, precision=jax.lax.Precision.HIGHEST)
        new = (start + jnp.arange(columns) >= index * columns) & (names >= 0)
        cosines = jnp.where(new[None], cosines, -jnp.inf)
        return _merge(best, (cosines, jnp.broadcast_to(names, cosines.shape)), k), None

    none = jnp.full((len(query), k), -jnp.inf), jnp.zeros((len(query), k), jnp.int32)
    return jax.lax.scan(visit, none, jnp.arange(-(-count // columns)))[0]


def _merge(one: Neighbors, other: Neighbors, k: int) -> Neighbors:
    """The nearest of both; among equal cosines those of the first come first."""
    cosines, labels = (jnp.concatenate(parts, axis=1) for parts in zip(one, other, strict=True))
    cosines, nearest = jax.lax.top_k(cosines, k)
    return cosines, jnp.take_along_axis(labels, nearest, axis=1)


def _as_unit(x: Array) -> Array:
    return unit_rows(x.astype(jnp.float32))
