"""Uniformity at its edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_uniformity_is_zero_for_a_single_point_and_least_for_opposite_ones():
    at = jax.jit(functools.partial(losses.uniformity, t=100.0))  # exp(-4t) is no float32
    np.testing.assert_allclose(at(jnp.ones((2, 2))), 0, atol=1e-4)
    np.testing.assert_allclose(at(jnp.asarray([[1.0, 0.0], [-1.0, 0.0]])), -400, rtol=1e-6)


def test_a_single_row_is_refused():
    with pytest.raises(ValueError, match="global batch must be at least 2 images, got 1"):
        losses.uniformity(jnp.ones((1, 3)))
