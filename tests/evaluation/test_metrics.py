"""Collapse metrics against their definitions in NumPy, and on spectra known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.evaluation import effective_rank, rank_me, total_variance


def _unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def _entropy_rank(values):
    values = values[values > 0]
    return np.exp(-np.sum(values * np.log(values)))


@pytest.mark.parametrize("shape", [(200, 16), (10, 32), (16, 16)])
def test_equal_numpy(shape):
    rng = np.random.default_rng(0)
    z = rng.normal(size=shape) @ np.diag(0.7 ** np.arange(shape[1])) + 0.3
    covariance = np.cov(_unit(z).T, bias=True)
    eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 0)
    singular = np.linalg.svd(z, compute_uv=False)
    x = jnp.asarray(z, jnp.float32)
    share = eigenvalues / eigenvalues.sum()
    np.testing.assert_allclose(jax.jit(effective_rank)(x), _entropy_rank(share), rtol=1e-4)
    np.testing.assert_allclose(jax.jit(total_variance)(x), np.trace(covariance), rtol=1e-5)
    expected = _entropy_rank(singular / singular.sum() + 1e-7)
    np.testing.assert_allclose(jax.jit(rank_me)(x), expected, rtol=1e-4)


def test_known_spectra():
    corners = jnp.concatenate([jnp.eye(8), -jnp.eye(8)])  # a centred isotropic cloud
    np.testing.assert_allclose(effective_rank(corners), 8, rtol=1e-5)
    np.testing.assert_allclose(total_variance(corners), 1, rtol=1e-6)
    np.testing.assert_allclose(rank_me(corners), 8, rtol=1e-4)
    line = jnp.array([[1.0, 0, 0], [-1.0, 0, 0]])
    np.testing.assert_allclose(effective_rank(line), 1, rtol=1e-5)
    point = jnp.ones((6, 4))
    assert float(effective_rank(point)) == pytest.approx(1)
    assert float(total_variance(point)) == pytest.approx(0, abs=1e-12)
    assert float(rank_me(point)) == pytest.approx(1, abs=1e-4)
    assert np.isfinite(effective_rank(jnp.zeros((6, 4))))


def test_refuse_what_is_no_matrix():
    for metric in (effective_rank, total_variance, rank_me):
        with pytest.raises(ValueError, match=r"\[n, D\]"):
            metric(jnp.ones(3))
