"""What is particular to losses of similarity matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import loss_and_gradients

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def relative(similarity, anchor, axis_name=None):
    return losses.deep_boosting(similarity, anchor, mode="relative", axis_name=axis_name)


@pytest.mark.parametrize("devices", [2, 8])
def test_equal_largest_values_share_the_gradient_wherever_they_are(devices):
    """The same image many times: columns have their largest value on several devices."""
    generator = np.random.default_rng(0)
    images = np.repeat(generator.normal(size=(4, 5)), 4, axis=0)[
        [0, 1, 4, 8, 12, 2, 5, 6, 9, 13, 3, 7, 10, 11, 14, 15]
    ]
    similarity = np.round(images @ generator.normal(size=(16, 5)).T, 3)
    with jax.enable_x64(True):
        arrays = similarity, np.zeros_like(similarity)
        value, (gradient, _) = jax.value_and_grad(relative, (0, 1))(*map(jnp.asarray, arrays))
        shared = np.sort(np.abs(gradient[gradient != 0]))
        assert np.any(shared < 1)  # some are shared at all
        spread, (of_devices, _) = loss_and_gradients(relative, arrays, devices, "shard_map")
    np.testing.assert_allclose(spread, value, rtol=1e-12)
    np.testing.assert_allclose(of_devices, gradient, rtol=1e-12, atol=1e-12)


def test_a_branch_that_beats_its_anchor_by_the_margin_has_no_loss():
    similarity = 0.4 * jnp.eye(4) - 0.15
    for mode in ("absolute", "relative"):
        value, gradient = jax.value_and_grad(losses.deep_boosting)(
            similarity, jnp.zeros((4, 4)), mode=mode
        )
        assert value == 0 and not np.any(gradient)
    assert losses.deep_boosting(jnp.zeros((4, 4)), jnp.zeros((4, 4))) == pytest.approx(4 * 4 * 0.1)


def test_what_is_no_similarity_of_the_batch_is_refused():
    with pytest.raises(ValueError, match=r"column for each of the 4 rows.*\(4, 6\)"):
        losses.deep_boosting(jnp.ones((4, 6)), jnp.ones((4, 6)))
    with pytest.raises(ValueError, match="mode must be one of 'absolute', 'relative'; got 'both'"):
        losses.deep_boosting(jnp.ones((4, 4)), jnp.ones((4, 4)), mode="both")
