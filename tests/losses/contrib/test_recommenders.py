"""What is particular to losses of sequences."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr import losses


def test_one_sequence_has_no_negatives():
    with pytest.raises(ValueError, match="at least 2 sequences, got 1"):
        losses.contrast_regularizer(jnp.ones((1, 3)), jnp.ones((1, 3)))


def test_a_temperature_of_the_products_divides_the_regularizer():
    z1, z2 = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)
    scaled = losses.contrast_regularizer(
        z1 / np.sqrt(0.5, dtype=np.float32), z2 / np.sqrt(0.5, dtype=np.float32)
    )
    np.testing.assert_allclose(scaled, losses.contrast_regularizer(z1, z2) / 0.5, rtol=1e-5)
