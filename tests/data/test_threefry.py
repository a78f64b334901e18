"""Draws in NumPy are those of JAX."""

import jax
import numpy as np
import pytest

from jaxclr.data import epoch_order, threefry
from jaxclr.data.shuffling import STREAM

PLACES = np.array([0, 1, 77, 2**31, 2**32 - 1], np.uint32)


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_folded_keys_and_uniform_draws(seed):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(seed, impl="threefry2x32"), PLACES
    )
    mine = threefry.fold_in(threefry.key(seed), PLACES)
    np.testing.assert_array_equal(np.stack(mine, 1), jax.random.key_data(keys))
    draw = jax.vmap(lambda key: jax.random.uniform(key, (36,), np.float32))
    np.testing.assert_array_equal(threefry.uniform(mine, 22), draw(keys)[:, :22])


@pytest.mark.parametrize("size", [1, 2, 999, 3000])
def test_orders(size):
    """Up to 1,625 images one round of sorting is enough."""
    key = jax.random.key(3, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, STREAM), 5)
    np.testing.assert_array_equal(epoch_order(3, 5, size), jax.random.permutation(key, size))
