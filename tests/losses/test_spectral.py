"""What is particular to losses of the spectrum, of projections and of graph encoders' bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import unit

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
GENERATOR = np.random.default_rng(0)


def test_mmcr_moves_dimensions_that_have_all_but_collapsed():
    """Singular values of 1e-5 of the largest in float32, of which a Gram matrix keeps none."""
    scales = np.asarray([1.0, 1e-3, 1e-4, 1e-5])
    rows = np.concatenate([np.full((64, 1), 1.0), GENERATOR.normal(size=(64, 3))], 1) * scales
    views = np.stack([rows, rows]).astype(np.float32)
    value, (gradient, _) = jax.value_and_grad(losses.mmcr)(views)
    exact = unit(views.astype(np.float64)).mean(axis=0)
    left, values, right = np.linalg.svd(exact, full_matrices=False)
    assert values[-1] < 1e-4 * values[0]
    np.testing.assert_allclose(value, -values.sum(), rtol=1e-6)
    # The rows' lengths do not change, and half of a centroid is one view.
    towards = -left @ right / 2
    towards -= exact * np.sum(towards * exact, axis=1, keepdims=True)
    lengths = np.linalg.norm(views[0], axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, towards / lengths, rtol=1e-2, atol=1e-2)


def test_mmcr_and_frossl_are_least_for_full_rank():
    rows = np.kron(np.eye(4), np.ones((3, 1))).astype(np.float32)  # every dimension alike
    views = np.stack([rows, rows])
    np.testing.assert_allclose(losses.mmcr(views), -np.sqrt(12 * 4), rtol=1e-6)
    np.testing.assert_allclose(losses.frossl(views), -2 * np.log(4), rtol=1e-6)
    one = np.ones_like(views)
    np.testing.assert_allclose(losses.mmcr(one), -np.sqrt(12), rtol=1e-6)
    np.testing.assert_allclose(losses.frossl(one), 0, atol=1e-5)


def test_mmcr_does_not_move_rows_that_have_collapsed():
    """Their other singular values are roundings, whose directions mean nothing."""
    direction = np.random.default_rng(1).normal(size=(1, 1, 8))
    views = jnp.asarray(np.broadcast_to(direction, (2, 32, 8)), jnp.float32)
    np.testing.assert_allclose(jax.grad(losses.mmcr)(views), 0, atol=1e-5)


def test_frossl_of_few_rows_forms_no_matrix_of_dimensions():
    views = jax.ShapeDtypeStruct((2, 8, 2048), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(losses.frossl)).lower(views).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2048 * 2048 * 4 / 4


def test_direct_pred_takes_a_correlation_of_low_rank():
    """Whose other eigenvalues are roundings of either sign."""
    generator = np.random.default_rng(1)
    z, t = jnp.asarray(generator.normal(size=(2, 6, 8)), jnp.float32)
    direction = unit(generator.normal(size=(1, 8)))
    exact = direction.T @ direction
    found = losses.direct_pred(z, z, t, t, jnp.asarray(3 * exact, jnp.float32), eps=0.1)
    p = unit(np.asarray(z, np.float64) @ (exact + 0.1 * np.eye(8)))
    want = 2 * np.mean(np.sum((p - unit(np.asarray(t, np.float64))) ** 2, axis=1))
    np.testing.assert_allclose(found, want, rtol=1e-2)


def test_sigreg_tells_normal_rows_from_others():
    rows = jnp.asarray(GENERATOR.normal(size=(2000, 8)), jnp.float32)
    directions = jnp.asarray(GENERATOR.normal(size=(32, 8)), jnp.float32)
    found = jax.jit(losses.sigreg)
    assert found(rows, directions) < 2 < found(1.2 * rows, directions)
    assert found(rows + 0.2, directions) > 10
    assert found(0 * rows, directions) > 100


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda z: losses.tico(z, z, jnp.eye(3)),
            ValueError,
            r"covariance must be \[D, D\] with D = 4, got shape \(3, 3\)",
        ),
        (
            lambda z: losses.tico(z, z, jnp.eye(4), momentum=1.5),
            ValueError,
            "momentum must be at most 1, got 1.5",
        ),
        (
            lambda z: losses.sigreg(z, jnp.ones((5, 3))),
            ValueError,
            r"directions must be \[K, D\] with D = 4, got shape \(5, 3\)",
        ),
        (
            lambda z: losses.sigreg(z, z, knots=1),
            ValueError,
            "knots must be at least 2, got 1",
        ),
        (lambda z: losses.mmcr(z[None]), ValueError, "views must be at least 2 of each image"),
        (
            lambda z: losses.sparsest_cut(z, jnp.asarray([[0], [6]])),
            ValueError,
            r"negatives\[1\] must be 0 to 5, got 6",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(jnp.ones((6, 4)))


def test_tico_covariance_is_a_constant():
    rows = jnp.ones((6, 4))
    gradient = jax.grad(lambda q: jnp.sum(losses.tico_covariance(q, jnp.eye(4)) ** 2))(rows)
    assert not gradient.any()


def test_a_bound_of_a_graph_without_edges_is_the_margin_itself():
    """Nothing can be dropped, so that the lines meet the activation."""
    z, x = GENERATOR.normal(size=(2, 7, 4))
    w1, w2 = GENERATOR.normal(size=(2, 4, 4))
    b1, b2 = GENERATOR.normal(size=(2, 4))
    arrays = [jnp.asarray(a, jnp.float32) for a in (z, x, w1, b1, w2, b2)]
    none = jnp.zeros((2, 0), jnp.int32), jnp.zeros(0, bool)
    found = losses.node_compactness(*arrays, *none, drop=0.5, slope=0.1)
    phi = lambda value: np.where(value > 0, value, 0.1 * value)
    h = phi(phi(x @ w1 + b1) @ w2 + b2)
    z = unit(z)
    margin = np.sum((z - (z.sum(axis=0) - z) / 6) * h, axis=1)
    np.testing.assert_allclose(found, np.mean(np.log1p(np.exp(-margin))), rtol=1e-5)
