"""The temperature function: what it may close over, and what it may give."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import views

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
GENERATOR = np.random.default_rng(0)
HEADS1, HEADS2 = HEADS = [np.float32(views(2)(GENERATOR, 6, 4)) for _ in range(2)]
PARAMETERS = {name: GENERATOR.normal(size=(4, 3)) for name in ("x", "y")} | {
    "out": GENERATOR.normal(size=3)
}


def network(parameters, x, y):
    """A small network on both features, its first layer in two parts."""
    hidden = jnp.tanh(x @ parameters["x"] + y @ parameters["y"])
    return 0.1 + 1.9 * jax.nn.sigmoid(hidden @ parameters["out"])


def test_a_constant_temperature_gives_nt_xent_of_each_head():
    value = losses.adaptive_multi_head(
        *HEADS, lambda x, y: jnp.full(jnp.broadcast_shapes(x.shape, y.shape)[:-1], 0.5)
    )
    each = [losses.nt_xent(z1, z2, temperature=0.5) for z1, z2 in zip(*HEADS, strict=True)]
    np.testing.assert_allclose(value, sum(each) + 0.1 * 2 * (2 * np.log(0.5) + 2), rtol=1e-5)


def test_parameters_of_the_temperature_get_their_gradient():
    def dense(parameters):
        total = 0.0
        for z in np.concatenate(np.float64(HEADS), axis=1):
            z = jnp.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))
            temperatures = network(parameters, z[:, None], z[None, :])
            logits, others = z @ z.T / temperatures, ~np.eye(12, dtype=bool)
            entropy = jax.nn.logsumexp(logits, axis=1, where=others) - jnp.diag(
                jnp.roll(logits, 6, axis=1)
            )
            penalty = jnp.mean((2 * jnp.log(temperatures) + 1 / temperatures)[others])
            total += jnp.mean(entropy) + 0.3 * penalty
        return total

    def tiled(parameters):
        temperature_fn = functools.partial(network, parameters)
        return losses.adaptive_multi_head(*np.float64(HEADS), temperature_fn, beta=0.3, tile=5)

    with jax.enable_x64(True):
        one, other = (jax.jit(jax.value_and_grad(loss))(PARAMETERS) for loss in (dense, tiled))
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), other, one)


def test_another_shape_than_that_of_the_pairs_is_refused():
    with pytest.raises(
        ValueError,
        match=r"shape \(12, 12\) for features \(12, 1, 4\) and \(1, 12, 4\), got \(12, 12, 4\)",
    ):
        losses.adaptive_multi_head(*HEADS, lambda x, y: jnp.exp(x * y))


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="heads1 and heads2 must have the same H"):
        losses.adaptive_multi_head(HEADS1, HEADS2[:1], jnp.add)
    with pytest.raises(ValueError, match="beta must be finite and zero or more"):
        losses.adaptive_multi_head(*HEADS, jnp.add, beta=-0.1)
