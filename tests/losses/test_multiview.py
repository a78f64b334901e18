"""Losses of several views: what they are for two, and what they keep finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import golden_view, views
from entries.multiview import mv_dhel

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_of_two_views_they_are_what_they_extend():
    two = jnp.asarray(np.stack(views(2)(np.random.default_rng(0), 9, 5)), jnp.float32)

    @jax.jit
    def pairs_of_values(two):
        nt_xent = losses.nt_xent(*two, temperature=0.3)
        return (
            (losses.poly_view(two, temperature=0.3), nt_xent),
            (losses.pairwise_nt_xent(two, temperature=0.3), nt_xent),
            (losses.average_nt_xent(two, temperature=0.3), nt_xent),
            (losses.mv_dhel(two, temperature=0.3), losses.dhel(*two)),
        )

    for value, wanted in pairs_of_values(two):
        np.testing.assert_allclose(value, wanted, rtol=1e-6)


def test_mv_info_nce_of_two_views_is_not_nt_xent():
    two = np.stack([golden_view(0), golden_view(1)]).astype(np.float32)
    value = jax.jit(lambda v: losses.mv_info_nce(v, temperature=0.5))(two)
    np.testing.assert_allclose(value, 1.4232142617, rtol=1e-6)  # nt_xent is 1.4221610094


def test_mv_dhel_of_many_views_does_not_overflow():
    generator = np.random.default_rng(0)
    close = 1 + 0.01 * generator.normal(size=(12, 16, 8))  # a product of sums would be (15 e^10)^12
    value, gradient = jax.jit(jax.value_and_grad(lambda v: losses.mv_dhel(v, temperature=0.1)))(
        jnp.asarray(close, jnp.float32)
    )
    np.testing.assert_allclose(value, mv_dhel(close, 0.1), rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_too_few_views_and_images_are_refused():
    with pytest.raises(ValueError, match="views must be at least 2 of each image, got 1"):
        losses.poly_view([jnp.ones((4, 3))])
    with pytest.raises(ValueError, match=r"views\[0\] and views\[1\] must have the same b"):
        losses.mv_info_nce([jnp.ones((4, 3)), jnp.ones((5, 3))])
    for alone in (lambda z: losses.mv_dhel([z, z]), lambda z: losses.dhel(z, z)):
        with pytest.raises(ValueError, match="global batch must be at least 2 images, got 1"):
            alone(jnp.ones((1, 3)))
