"""Extrapolated positives and interpolated negatives; the loss they are for is in the battery."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import unit, views

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
Q, K = (z.astype(np.float32) for z in views(2)(np.random.default_rng(0), 6, 5))
ORDER = np.array([3, 0, 1, 5, 4, 2], np.int32)


def test_positives_move_apart_as_far_as_stated():
    q, k = losses.extrapolate_positives(Q, K, 1.4)
    np.testing.assert_allclose(q, 1.4 * unit(Q) - 0.4 * unit(K), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(k, 1.4 * unit(K) - 0.4 * unit(Q), rtol=1e-5, atol=1e-6)
    cosines = np.sum(unit(Q) * unit(K), axis=1)
    np.testing.assert_allclose(
        np.sum(q * k, axis=1), cosines - 2 * 1.4 * 0.4 * (1 - cosines), rtol=1e-5, atol=1e-6
    )


def test_a_drawn_lam_is_accepted_and_one_changes_nothing():
    one = jax.jit(losses.extrapolate_positives)(Q, K, jnp.float32(1))
    jax.tree.map(
        lambda got, rows: np.testing.assert_allclose(got, unit(rows), rtol=1e-5), one, (Q, K)
    )
    half = jax.jit(losses.interpolate_negatives)(Q, jnp.float32(0.5), ORDER)
    np.testing.assert_allclose(half, (unit(Q) + unit(Q)[ORDER]) / 2, rtol=1e-5, atol=1e-6)


def test_gradients_reach_the_query_alone():
    def total(q, k, queue):
        q, k = losses.extrapolate_positives(q, k, 1.4)
        mixed = losses.interpolate_negatives(queue, 0.7, ORDER)
        return jnp.sum(q[:, 0]), jnp.sum(k[:, 0]) + jnp.sum(mixed[:, 0])

    of_q, of_rest = jax.jacrev(total, (0, 1, 2))(Q, K, K)
    assert np.any(of_q[0]) and np.any(of_rest[0])
    assert not any(np.any(gradient) for gradient in (*of_q[1:], *of_rest[1:]))


@pytest.mark.parametrize("lam", [0.99, -1.0, float("nan")])
def test_what_is_no_extrapolation_is_refused(lam):
    with pytest.raises(ValueError, match="lam must be"):
        losses.extrapolate_positives(Q, K, lam)


def test_what_is_no_interpolation_is_refused():
    with pytest.raises(ValueError, match=r"lam must be from 0 to 1, got 1.1"):
        losses.interpolate_negatives(Q, 1.1, ORDER)
    with pytest.raises(ValueError, match="is not a permutation of 0 to 5"):
        losses.interpolate_negatives(Q, 0.5, np.zeros(6, np.int32))
    with pytest.raises(ValueError, match="permutation must be 0 to 5, got 6"):
        losses.interpolate_negatives(Q, 0.5, ORDER + 1)
    with pytest.raises(ValueError, match=r"permutation must be \[6\]"):
        losses.interpolate_negatives(Q, 0.5, ORDER[:5])
    with pytest.raises(TypeError, match="array of integers"):
        losses.interpolate_negatives(Q, 0.5, ORDER.astype(np.float32))
