"""Losses of pairs at their edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import views

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_without_active_triplets_the_hinge_is_nothing():
    z = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]])  # positives at 1, negatives at -1
    value, gradient = jax.jit(jax.value_and_grad(losses.triplet))(z, 2 * z)
    np.testing.assert_allclose(value, 8 * np.log1p(np.exp(-2 / 0.5)), rtol=1e-6)
    assert np.isfinite(gradient).all()


def test_trip_is_roma_with_the_identity():
    z1, z2 = (z.astype(np.float32) for z in views(2)(np.random.default_rng(0), 7, 4))
    loss = jax.jit(losses.triplet)
    mapped = loss(z1, z2, np.eye(4, dtype=np.float32))
    np.testing.assert_allclose(loss(z1, z2), mapped, rtol=1e-6)


def test_what_has_no_triplets_or_negatives_is_refused():
    z = jnp.ones((4, 3))
    with pytest.raises(ValueError, match="z1 and projection must have the same D"):
        losses.triplet(z, z, jnp.ones((4, 4)))
    for loss in (losses.triplet, losses.mio):
        with pytest.raises(ValueError, match="global batch must be at least 2 images, got 1"):
            loss(z[:1], z[:1])
    for name in ("margin", "pairwise_weight"):
        with pytest.raises(ValueError, match=f"{name} must be finite and zero or more, got -1"):
            losses.triplet(z, z, **{name: -1})
    with pytest.raises(ValueError, match="mse_weight must be finite and zero or more, got -1"):
        losses.mio(z, z, mse_weight=-1)
