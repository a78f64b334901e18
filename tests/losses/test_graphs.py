"""What is particular to losses of graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import unit, views
from distributed import loss_and_gradients

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
GENERATOR = np.random.default_rng(0)
COARSE, FINE = (view.astype(np.float32) for view in views(2)(GENERATOR, 16, 6))
PROBABILITIES = jnp.full((16, 3), 1 / 3)


@pytest.mark.parametrize(
    "edges, error, message",
    [
        (jnp.zeros((2, 5)), TypeError, "edges.* integers, got float32"),
        ([[0], [1]], TypeError, "edges must be an array of integers, got list"),
        (jnp.zeros((5, 2), jnp.int32), ValueError, r"edges must be \[2, E\].*\(5, 2\)"),
        (jnp.asarray([[0], [16]], jnp.int32), ValueError, r"edges\[1\] must be 0 to 15, got 16"),
        (jnp.asarray([[-1], [0]], jnp.int32), ValueError, r"edges\[0\] must be 0 to 15, got -1"),
    ],
)
def test_edges_that_are_none_are_refused(edges, error, message):
    with pytest.raises(error, match=message):
        losses.community_density(PROBABILITIES, edges)


def test_a_graph_without_edges_has_the_price_of_its_communities():
    none = jnp.zeros((2, 0), jnp.int32)
    np.testing.assert_allclose(losses.community_density(PROBABILITIES, none), 1 / 6, rtol=1e-6)


def test_equal_weights_are_info_nce():
    ones = np.ones((16, 16), np.float32)
    plain = jax.value_and_grad(lambda *z: losses.info_nce(*z, temperature=0.5), (0, 1))
    weighted = jax.value_and_grad(
        lambda *z: losses.weighted_info_nce(*z, ones, temperature=0.5), (0, 1)
    )
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, weighted(COARSE, FINE), plain(COARSE, FINE))


def test_clusterings_weigh_by_how_many_part_a_pair():
    """MEOW: the positive is left out, and so is a node that shares every cluster."""
    clusters = GENERATOR.integers(0, 3, size=(16, 2)).astype(np.int32)
    apart = lambda a, b: jnp.sum(a != b, axis=-1).astype(jnp.float32)
    by_function = jax.value_and_grad(
        lambda z_a, z: losses.weighted_info_nce(
            z_a, z, apart, row_values=(clusters,), column_values=(clusters,)
        ),
        (0, 1),
    )
    counts = np.sum(clusters[:, None] != clusters[None, :], axis=-1).astype(np.float32)
    by_matrix = jax.value_and_grad(lambda z_a, z: losses.weighted_info_nce(z_a, z, counts), (0, 1))
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(near, by_function(COARSE, FINE), by_matrix(COARSE, FINE))
    a = unit(np.float64(COARSE)) @ unit(np.float64(FINE)).T / 0.9
    expected = np.mean(np.log(np.sum(counts * np.exp(a), axis=1)) - np.diag(a))
    np.testing.assert_allclose(by_matrix(COARSE, FINE)[0], expected, rtol=1e-5)


def perceptron(z_a, z, first, second, axis_name=None, temperature=0.5):
    """AdaMEOW: the first layer on either side beforehand, the second inside."""
    weights = lambda u, v: jax.nn.sigmoid(jnp.sum(jnp.tanh(u + v) * second, axis=-1))
    sides = dict(row_values=(jnp.matmul(z_a, first),), column_values=(jnp.matmul(z, first),))
    return losses.weighted_info_nce(
        z_a, z, weights, **sides, temperature=temperature, axis_name=axis_name
    )


def test_learned_weights_have_the_gradient_of_the_global_batch():
    def dense(z_a, z, first, second):
        hidden = jnp.tanh(jnp.matmul(z_a, first)[:, None] + jnp.matmul(z, first)[None, :])
        unit = lambda x: x / jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
        logits = jnp.matmul(unit(z_a), unit(z).T) / 0.5
        weighted = logits + jnp.log(jax.nn.sigmoid(jnp.sum(hidden * second[None, None], axis=-1)))
        return jnp.mean(jax.nn.logsumexp(weighted, axis=1) - jnp.diag(logits))

    arrays = (
        np.float64(COARSE),
        np.float64(FINE),
        GENERATOR.normal(size=(6, 3)),
        GENERATOR.normal(size=3),
    )
    loss = lambda *a, **options: perceptron(*a[:3], a[3][None, None], **options)
    with jax.enable_x64(True):
        value, gradients = jax.value_and_grad(dense, (0, 1, 2, 3))(*map(jnp.asarray, arrays))
        spread = loss_and_gradients(loss, arrays, 8, "shard_map", spread=(0, 0, None, None))
        np.testing.assert_allclose(spread[0], value, rtol=1e-10)
        for got, wanted in zip(spread[1], gradients, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-12)


def test_wide_values_take_smaller_tiles():
    rows, width = 2048, 64
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    step = jax.jit(jax.grad(perceptron, (0, 1, 2, 3)))
    lowered = step.lower(like(rows, 8), like(rows, 8), like(8, width), like(1, 1, width))
    assert lowered.compile().memory_analysis().temp_size_in_bytes < rows * rows * width * 4 / 16


@pytest.mark.parametrize("as_function", [True, False])
def test_weights_of_zero_leave_pairs_out_at_any_temperature(as_function):
    """Excluded pairs may have by far the largest logits: they change nothing."""
    kept = GENERATOR.uniform(size=(16, 16)) < 0.5
    np.fill_diagonal(kept, False)
    kept[3] = False
    weights = kept.astype(np.float32)

    def loss(z_a, z, weights):
        if not as_function:
            return losses.weighted_info_nce(z_a, z, weights, temperature=0.01)
        places = np.arange(16, dtype=np.int32)
        of_rows = lambda row, place: jnp.take_along_axis(
            row[:, 0], jnp.broadcast_to(place, row[:, 0].shape), axis=1
        )
        sides = dict(row_values=(weights,), column_values=(places,))
        return losses.weighted_info_nce(z_a, z, of_rows, **sides, temperature=0.01)

    value, gradients = jax.value_and_grad(loss, (0, 1, 2))(COARSE, FINE, weights)
    a = unit(np.float64(COARSE)) @ unit(np.float64(FINE)).T / 0.01
    logits = np.where(kept, a, -np.inf)
    rows = np.delete(np.arange(16), 3)
    expected = np.sum(np.logaddexp.reduce(logits[rows], axis=1) - np.diag(a)[rows]) / 16
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert not np.any(gradients[0][3]) and np.any(gradients[0][2])
    shares = np.exp(logits[rows] - np.logaddexp.reduce(logits[rows], axis=1, keepdims=True)) / 16
    np.testing.assert_allclose(gradients[2][rows], shares, rtol=1e-4, atol=1e-6)
    assert not np.any(gradients[2][~kept])


def test_weights_that_do_not_fit_are_refused():
    ones, function = jnp.ones((16, 16)), lambda u, v: u + v
    with pytest.raises(ValueError, match=r"column for each of the 16 rows.*\(16, 8\)"):
        losses.weighted_info_nce(COARSE, FINE, ones[:, :8])
    with pytest.raises(TypeError, match="go with a function"):
        losses.weighted_info_nce(COARSE, FINE, ones, row_values=(ones,))
    with pytest.raises(ValueError, match=r"column_values\[0\] must be \[16, ...\].*\(8,\)"):
        losses.weighted_info_nce(
            COARSE, FINE, function, row_values=(ones[0],), column_values=(ones[0, :8],)
        )
