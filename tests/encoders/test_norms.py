"""Norms: accurate far from zero, on any number of devices, with the variables of Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import map_rows

from jaxclr.encoders.layers import BatchNorm, LayerNorm, batch_norm

ROWS, WIDTH = 128, 4


def far(mean):
    i, j = np.arange(ROWS)[:, None], np.arange(WIDTH)[None, :]
    return (mean + np.sin(1.7 * i + 0.9 * j)).astype(np.float32)


def normed(x, axis, epsilon):
    x = x.astype(np.float64)
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + epsilon)


def with_a_far_first_row():
    x = far(3000)
    x[0] = 0
    return x


@pytest.mark.parametrize("devices, how", [(1, "shard_map"), (2, "pmap"), (8, "shard_map")])
@pytest.mark.parametrize(
    "x, tolerance", [(far(0), 2e-6), (far(300), 1e-5), (far(3000), 1e-5), (far(-1e6), 1e-5)]
)
def test_batch_norm_far_from_zero(x, tolerance, devices, how):
    out, mean, var = _train(x, devices, how)
    np.testing.assert_allclose(out, normed(x, 0, 1e-5), atol=tolerance)
    np.testing.assert_allclose(mean, 0.1 * x.astype(np.float64).mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, 0.9 + 0.1 * x.astype(np.float64).var(0), rtol=1e-5)


@pytest.mark.parametrize("devices, how", [(1, "shard_map"), (8, "shard_map")])
def test_the_worst_first_row_costs_few_bits(devices, how):
    """It is sqrt(127) deviations from the mean: seven bits of 24."""
    x = with_a_far_first_row()
    out, _, _ = _train(x, devices, how)
    np.testing.assert_allclose(out, normed(x, 0, 1e-5), rtol=2e-5, atol=2e-5)


def _train(x, devices, how):
    """Outputs [b, d], and the running statistics after a step."""
    norm = batch_norm("float32", "batch", True, use_scale=False, use_bias=False)
    variables = norm.init(jax.random.key(0), x)

    def of_device(x):
        out, state = norm.apply(variables, x, mutable=["batch_stats"])
        stats = state["batch_stats"]
        return out, stats["mean"][None], stats["var"][None]

    out, mean, var = map_rows(of_device, devices, how)(x)
    assert (mean == mean[0]).all() and (var == var[0]).all()
    return out, mean[0], var[0]


@pytest.mark.parametrize("mean", [0, 30, 100])
def test_narrow_inputs_lose_less_than_their_own_rounding(mean):
    """The scale of outputs by the variance in float32, against outputs by exact statistics."""
    exact, narrow = far(mean), jnp.asarray(far(mean), jnp.bfloat16)
    rounded = np.asarray(narrow, np.float64)
    rounding = np.abs(normed(rounded, 0, 1e-5) - normed(exact, 0, 1e-5)).max()
    _, _, running = _train(narrow, 1, "shard_map")
    error = np.sqrt((running - 0.9) / 0.1 / rounded.var(0)) - 1
    assert np.abs(error).max() < rounding / 5


def test_layer_norm_far_from_zero():
    x = far(3000).T.copy()
    norm = LayerNorm()
    variables = norm.init(jax.random.key(0), x)
    np.testing.assert_allclose(norm.apply(variables, x), normed(x, 1, 1e-6), atol=1e-5)


PAIRS = {
    "batch": (
        lambda train: BatchNorm(train, None),
        lambda train: nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5),
    ),
    "layer": (lambda train: LayerNorm(), lambda train: nn.LayerNorm(epsilon=1e-6)),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", PAIRS)
def test_norms_are_flaxs_near_zero(kind, train):
    """The same variables, outputs, statistics and gradients, in float64; evaluation bit by bit."""
    ours, theirs = (make(train) for make in PAIRS[kind])
    with jax.enable_x64(True):
        generator = np.random.default_rng(0)
        x = jnp.asarray(generator.normal(size=(16, 3, 5)))
        like = jax.eval_shape(theirs.init, jax.random.key(0), x)
        assert jax.eval_shape(ours.init, jax.random.key(0), x) == like
        draw = lambda leaf: jnp.asarray(generator.uniform(0.5, 1.5, size=leaf.shape))
        variables = jax.tree.map(draw, like)

        def run(norm):
            def loss(params, x):
                out, state = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
                return jnp.sum(jnp.sin(out)), (out, state)

            return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)

        (to_ours, seen_ours), (to_theirs, seen_theirs) = run(ours), run(theirs)
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
        jax.tree.map(close, (to_ours, seen_ours), (to_theirs, seen_theirs))
        if kind == "batch" and not train:
            np.testing.assert_array_equal(seen_ours[0], seen_theirs[0])
