"""Identities of the contrastive losses, and what they refuse beside bad embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import views
from distributed import map_rows

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
Z1, Z2, OTHER1, OTHER2 = (z.astype(np.float32) for z in views(4)(np.random.default_rng(0), 8, 5))


def test_nt_xent_is_at_least_dcl_of_both_directions():
    both = losses.dcl(Z1, Z2, temperature=0.2) + losses.dcl(Z2, Z1, temperature=0.2)
    assert both / 2 < losses.nt_xent(Z1, Z2, temperature=0.2)


def test_dcl_leaves_the_positive_out_at_any_temperature():
    # The cosine of each positive is 1, that of its six negatives 0.
    z = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(losses.dcl(z, z, temperature=0.001), np.log(6) - 1000, rtol=1e-6)


def test_stopped_weights_have_the_value_and_another_gradient():
    at = lambda stop: jax.value_and_grad(
        lambda z: losses.dcl(z, Z2, weighting="von_mises_fisher", stop_weights=stop)
    )(Z1)
    (value, gradient), (stopped_value, stopped_gradient) = at(False), at(True)
    assert value == stopped_value
    assert np.abs(gradient - stopped_gradient).max() > 1e-3


def test_dcl_of_one_row_is_refused_but_not_of_one_on_each_device():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        losses.dcl(Z1[:1], Z2[:1])
    spread = map_rows(lambda *rows: losses.dcl(*rows, axis_name="batch")[None], 8, "pmap")
    np.testing.assert_allclose(np.mean(spread(Z1, Z2)), losses.dcl(Z1, Z2), rtol=1e-5)


def test_an_unknown_weighting_is_refused():
    with pytest.raises(
        ValueError, match="weighting must be one of None, 'von_mises_fisher'; got 'vmf'"
    ):
        losses.dcl(Z1, Z2, weighting="vmf")


def test_units_may_differ_in_width_but_not_in_rows():
    narrow = OTHER1[:, :3], OTHER2[:, :3]
    total = losses.nt_xent(Z1, Z2) + losses.nt_xent(*narrow)
    np.testing.assert_allclose(losses.local_contrast([(Z1, Z2), narrow]), total, rtol=1e-6)
    with pytest.raises(
        ValueError, match=r"pairs\[0\]\[0\] and pairs\[1\]\[0\] must have the same b"
    ):
        losses.local_contrast([(Z1, Z2), (OTHER1[:7], OTHER2[:7])])
    with pytest.raises(ValueError, match=r"units of \[2, 1\] arrays"):
        losses.local_contrast([(Z1, Z2), (OTHER1,)])
    with pytest.raises(ValueError, match=r"units of \[\] arrays"):
        losses.local_contrast([])


@pytest.mark.parametrize("loss", [losses.queue_info_nce, losses.queue_cross_entropy])
def test_a_queue_of_another_width_is_refused(loss):
    with pytest.raises(ValueError, match=r"queue must be .K, D. with D = 5"):
        loss(Z1, Z2, jnp.ones((12, 4)))


def test_a_queue_of_the_other_keys_is_info_nce():
    value = [
        losses.queue_info_nce(Z1[i : i + 1], Z2[i : i + 1], np.delete(Z2, i, 0)) for i in range(8)
    ]
    np.testing.assert_allclose(np.mean(value), losses.info_nce(Z1, Z2, temperature=0.2), rtol=1e-5)
