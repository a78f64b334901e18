"""What is particular to losses of points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
FEATURES = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
SEGMENTS = np.asarray([0, 0, 0, 1, 2, 2, 3, 3], np.int32)
FOREGROUND = np.asarray([1, 1, 1, 1, 0, 0, 0, 0], bool)


def test_other_segments_of_the_foreground_are_no_negatives():
    value, gradient = jax.value_and_grad(losses.region_contrast)(FEATURES, SEGMENTS, FOREGROUND)
    assert value > 0
    assert not np.any(
        gradient[3]
    )  # alone in its segment: neither an anchor that counts nor a negative
    assert all(np.any(gradient[i]) for i in (0, 1, 2, 4, 5, 6, 7))


def test_without_foreground_there_is_no_loss():
    value, gradient = jax.value_and_grad(losses.region_contrast)(
        FEATURES, SEGMENTS, np.zeros(8, bool)
    )
    assert value == 0 and not np.any(gradient)


def test_what_is_no_mask_is_refused():
    with pytest.raises(TypeError, match="foreground must be an array of booleans, got int32"):
        losses.region_contrast(FEATURES, SEGMENTS, jnp.asarray(FOREGROUND, jnp.int32))
    with pytest.raises(ValueError, match=r"foreground must be \[8\], got shape \(7,\)"):
        losses.region_contrast(FEATURES, SEGMENTS, FOREGROUND[:7])
    with pytest.raises(TypeError, match="segments must be an array of integers"):
        losses.region_contrast(FEATURES, FEATURES[:, 0], FOREGROUND)
