"""CACR: what it is for one query, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import views

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_cacr_rbf_of_one_query_is_a_direction_of_moco_v3():
    q, k = (z.astype(np.float32) for z in views(2)(np.random.default_rng(0), 9, 5))
    ours = lambda q: losses.cacr_rbf([q], k, temperature=0.3)
    moco_v3 = lambda q: 2 * 0.3 * losses.info_nce(q, k, temperature=0.3)
    value, gradient = jax.jit(jax.value_and_grad(ours))(q)
    wanted, slope = jax.jit(jax.value_and_grad(moco_v3))(q)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)


def test_cacr_refuses_what_it_cannot_weigh():
    two = jnp.ones((2, 4, 3))
    for debias in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="debias must be finite and zero or more"):
            losses.cacr(two, debias=debias)
    with pytest.raises(ValueError, match=r"debias must be below 1, got 1.0"):
        losses.cacr(two, debias=1.0)
    with pytest.raises(ValueError, match="alpha must be finite and zero or more, got -1"):
        losses.cacr(two, alpha=-1)
    with pytest.raises(ValueError, match="global batch must be at least 2 images, got 1"):
        losses.cacr(two[:, :1])
