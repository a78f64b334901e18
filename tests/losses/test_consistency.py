"""Consistency: where it vanishes, and who teaches whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entries.consistency import chain, with_keys

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_co2_of_a_query_and_itself_is_nothing():
    draws = np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32)
    # A symmetric affinity matrix, then two equal rows.
    loss = jax.jit(losses.co2)
    np.testing.assert_allclose(loss(draws[0], draws[0]), 0, atol=1e-6)
    np.testing.assert_allclose(loss(draws[0], 2 * draws[0], draws[1]), 0, atol=1e-6)


def test_weaker_views_teach_stronger_ones_and_learn_nothing_from_them():
    temperature = 0.3

    def dense(queries, key, queue):
        unit = lambda z: z / jnp.sqrt(jnp.sum(z * z, axis=-1, keepdims=True))
        queries, key, queue = unit(queries), unit(key), unit(queue)
        of_key = jnp.sum(queries * key[None], axis=-1, keepdims=True)
        logits = jnp.concatenate([of_key, jnp.einsum("vid,jd->vij", queries, queue)], axis=2)
        logs = jax.nn.log_softmax(logits / temperature, axis=2)
        taught = jax.lax.stop_gradient(jnp.exp(logs[:-1])) * logs[1:]
        return -jnp.mean(logs[0, :, 0]) - jnp.mean(jnp.sum(taught, axis=2))

    ours = lambda *arrays: losses.hierarchical_consistency(*arrays, temperature=temperature)
    with jax.enable_x64(True):
        arrays = with_keys(chain)(np.random.default_rng(0), 8, 5)
        value, gradient = jax.jit(jax.value_and_grad(ours))(*arrays)
        wanted, slope = jax.jit(jax.value_and_grad(dense))(*arrays)
        np.testing.assert_allclose(value, wanted, rtol=1e-12)
        np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-12)


def test_queues_of_another_width_are_refused():
    z, queue = jnp.ones((4, 3)), jnp.ones((6, 2))
    with pytest.raises(ValueError, match="q and negatives must have the same D"):
        losses.co2(z, z, queue)
    with pytest.raises(ValueError, match="queries and queue must have the same D"):
        losses.hierarchical_consistency([z, z], z, queue)
    with pytest.raises(ValueError, match="queries and key must have the same b"):
        losses.hierarchical_consistency([z, z], z[:2], z)
