"""What is particular to losses for classes of unequal size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entries.imbalance import balanced_contrast, images

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
BATCH = [
    a.astype(np.float32) if a.dtype == np.float64 else a
    for a in images(np.random.default_rng(0), 16, 6)
]
FEATURES, CENTRES, TARGETS, RELIABLE, CONFIDENCE, FREQUENCIES = BATCH


def loss(*changed, **options):
    return losses.balanced_contrast(
        *changed, *BATCH[len(changed) :], **{"progress": 0.5, **options}
    )


def test_at_the_end_of_training_frequencies_no_longer_count():
    equal = losses.balanced_contrast(
        *BATCH[:5], np.ones(4, np.float32), progress=1.0, adjustment=0.5
    )
    np.testing.assert_allclose(loss(progress=1.0, adjustment=0.5), equal, rtol=1e-6)
    assert abs(loss(progress=0.0, adjustment=0.5) - equal) > 1e-2


def test_a_low_temperature_neither_overflows_nor_vanishes():
    value, gradient = jax.value_and_grad(lambda f: loss(f, temperature=0.005))(FEATURES)
    assert np.isfinite(gradient).all() and np.any(gradient)
    with jax.enable_x64(True):
        exact = loss(
            *(np.float64(a) if a.dtype == np.float32 else a for a in BATCH), temperature=0.005
        )
    np.testing.assert_allclose(value, exact, rtol=1e-4)


def test_no_confident_image_is_no_loss():
    value, gradient = jax.value_and_grad(
        lambda f: loss(f, CENTRES, TARGETS, RELIABLE, np.zeros(16, bool))
    )(FEATURES)
    assert value == 0 and not np.any(gradient)


def test_a_scheduled_progress_is_accepted():
    scheduled = jax.jit(lambda t: loss(progress=t, temperature=0.3, adjustment=0.5))
    expected = balanced_contrast(*BATCH)
    np.testing.assert_allclose(scheduled(jnp.float32(0.25)), expected, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"progress must be at most 1, got 1.5"):
        loss(progress=1.5)
    with pytest.raises(ValueError, match="adjustment must be below 1, got 1"):
        loss(adjustment=1)
    with pytest.raises(ValueError, match="targets must be 0 to 3, got 4"):
        loss(FEATURES, CENTRES, np.full(16, 4, np.int32))
    with pytest.raises(
        TypeError, match="reliable_negatives must be an array of booleans, got int32"
    ):
        loss(FEATURES, CENTRES, TARGETS, RELIABLE.astype(np.int32))
    with pytest.raises(
        ValueError, match=r"reliable_negatives must be \[16, 4\], got shape \(16, 3\)"
    ):
        loss(FEATURES, CENTRES, TARGETS, RELIABLE[:, :3])
    with pytest.raises(ValueError, match="the same C"):
        loss(FEATURES, CENTRES[:3])
