"""Collapse metrics against NumPy, on spectra known in closed form, and on official values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import GOLDEN, golden_view

from jaxclr.evaluation import (
    alignment,
    augmentation_confusion_ratio,
    average_relative_confusion,
    collapse_auc,
    effective_rank,
    feature_std,
    rank_me,
    spectrum,
    total_variance,
    uniformity,
)
from jaxclr.evaluation.collapse import collapse_warning

OF_FEATURES = (
    collapse_auc,
    effective_rank,
    feature_std,
    rank_me,
    spectrum,
    total_variance,
    uniformity,
)


@pytest.mark.parametrize(
    "effective_rank, total_variance, width, said",
    [
        (30.0, 0.04, 64, "contracting to a point: total variance of their unit rows 0.04"),
        (
            3.9,
            0.9,
            64,
            "use few directions: effective rank of their centered covariance 3.9 of at most 64, "
            "bound 4",
        ),
        (1.2, 0.9, 12, "bound 1.5"),
        (1.05, 0.9, 4, "bound 1.1"),
        (4.1, 0.06, 64, None),
        (1.6, 0.9, 12, None),
    ],
)
def test_collapse_is_called_by_its_name(effective_rank, total_variance, width, said):
    found = collapse_warning(
        effective_rank=effective_rank, total_variance=total_variance, width=width
    )
    assert found is None if said is None else said in found and "What usually helps" in found


def _unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


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
    largest_first = eigenvalues[::-1][: min(shape)]
    np.testing.assert_allclose(jax.jit(spectrum)(x), largest_first, rtol=1e-4, atol=1e-7)
    deviations = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(jax.jit(feature_std)(x), deviations.mean(), rtol=1e-5)
    centered = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    area = np.mean(np.cumsum(centered) / centered.sum())
    np.testing.assert_allclose(jax.jit(collapse_auc)(x), area, rtol=1e-5)


def test_official_values():
    z = jnp.asarray(np.concatenate([golden_view(v, rows=32) for v in (0, 1)]), jnp.float32)
    golden = {row["name"]: row["loss"] for row in GOLDEN}
    np.testing.assert_allclose(rank_me(z), golden["RankMe Z=[view0;view1] B=32"], rtol=1e-5)
    np.testing.assert_allclose(collapse_auc(z), golden["Collapse AUC same Z"], rtol=1e-5)
    x0, x1 = (jnp.asarray(golden_view(v), jnp.float32) for v in (0, 1))
    both = alignment(x0, x1) + (uniformity(x0) + uniformity(x1)) / 2
    np.testing.assert_allclose(both, golden["align+uniform (1,1,a=2,t=2)"], rtol=1e-5)


def test_known_spectra():
    corners = jnp.concatenate([jnp.eye(8), -jnp.eye(8)])  # a centered isotropic cloud
    np.testing.assert_allclose(effective_rank(corners), 8, rtol=1e-5)
    np.testing.assert_allclose(total_variance(corners), 1, rtol=1e-6)
    np.testing.assert_allclose(rank_me(corners), 8, rtol=1e-4)
    np.testing.assert_allclose(spectrum(corners), 1 / 8, rtol=1e-5)
    np.testing.assert_allclose(feature_std(corners), 1 / np.sqrt(8), rtol=1e-5)
    np.testing.assert_allclose(collapse_auc(corners), 9 / 16, rtol=1e-5)
    line = jnp.array([[1.0, 0, 0], [-1.0, 0, 0]])
    np.testing.assert_allclose(effective_rank(line), 1, rtol=1e-5)
    np.testing.assert_allclose(collapse_auc(line), 1, rtol=1e-5)
    np.testing.assert_allclose(uniformity(line, t=0.5), -2, rtol=1e-5)
    np.testing.assert_allclose(alignment(line, line[::-1], alpha=3.0), 8, rtol=1e-5)
    point = jnp.ones((6, 4))
    assert float(effective_rank(point)) == pytest.approx(1)
    assert float(total_variance(point)) == pytest.approx(0, abs=1e-12)
    assert float(rank_me(point)) == pytest.approx(1, abs=1e-4)
    assert float(feature_std(point)) == pytest.approx(0, abs=1e-6)
    assert float(uniformity(point)) == pytest.approx(0, abs=1e-6)
    assert float(collapse_auc(point)) == 1
    assert np.isfinite(effective_rank(jnp.zeros((6, 4))))


@pytest.mark.parametrize("noise, offset", [(0.1, 0), (0.6, 0), (10.0, 0), (0.1, 1000)])
def test_confusion_is_that_of_nearest_neighbours(noise, offset):
    rng = np.random.default_rng(0)
    views = offset + rng.normal(size=(30, 4)) + noise * rng.normal(size=(3, 30, 4))
    rows = _unit(views).reshape(-1, 4)
    distances = np.linalg.norm(rows[:30, None] - rows[None], axis=2)
    distances[np.arange(30), np.arange(30)] = np.inf
    confused = np.mean(np.argmin(distances, axis=1) % 30 != np.arange(30))
    found = jax.jit(augmentation_confusion_ratio)(jnp.asarray(views, jnp.float32))
    np.testing.assert_allclose(found, confused, rtol=1e-6)


def test_confusion_of_clear_and_of_unrelated_views():
    images, confusion = np.eye(8, dtype=np.float32), jax.jit(augmentation_confusion_ratio)
    assert float(confusion([images, 2 * images])) == 0
    assert float(confusion([images, np.roll(images, 1, axis=0)])) == 1
    assert float(average_relative_confusion(0.25, 0.5)) == 1.5
    with pytest.raises(ValueError, match="views must be at least 2 of each image, got 1"):
        augmentation_confusion_ratio([images])


def test_confusion_takes_bounded_memory():
    views = jax.ShapeDtypeStruct((2, 8192, 4), jnp.float32)
    memory = jax.jit(augmentation_confusion_ratio).lower(views).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 * 1024**2 < 2 * 8192**2 * 4


def test_refuse_what_is_no_matrix():
    for metric in OF_FEATURES:
        with pytest.raises(ValueError, match=r"\[n, D\]|\[b, D\]"):
            metric(jnp.ones(3))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        uniformity(jnp.ones((1, 3)))
