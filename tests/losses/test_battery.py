"""What must hold for every loss."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import ENTRIES, ROWS, WIDTH
from distributed import GRID, loss_and_gradients
from jax.test_util import check_grads

pytestmark = pytest.mark.usefixtures("strict_promotion")
every_loss = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


@functools.cache
def compiled(entry):
    return jax.jit(jax.value_and_grad(entry, tuple(range(entry.inputs))))


@functools.cache
def value_of(entry):
    return jax.jit(entry)


def cast(arrays, dtype):
    return tuple(jnp.asarray(a, dtype) for a in arrays)


@every_loss
@pytest.mark.parametrize("rows", [ROWS, 7, 1])
def test_value_is_the_definition(entry, rows):
    with jax.enable_x64(True):
        for seed in range(3):
            arrays = entry.arrays(seed, rows)
            expected = entry.oracle(*arrays)
            np.testing.assert_allclose(value_of(entry)(*cast(arrays, jnp.float64)), expected, rtol=1e-9, atol=1e-9)
            single = value_of(entry)(*cast(arrays, jnp.float32))
            assert single.dtype == jnp.float32
            # an asymmetry of exactly zero, as of one row, is the root of a rounding error
            atol = np.finfo(np.float32).eps ** 0.5 if rows == 1 else 1e-5
            np.testing.assert_allclose(single, expected, rtol=1e-5, atol=atol)


@every_loss
def test_gradient_is_the_slope(entry):
    if entry.stops_statistics:
        return  # held by the golden values, and by the differentiated form of the same loss
    kept = [i for i in range(entry.inputs) if i not in entry.stopped]
    with jax.enable_x64(True):
        arrays = list(cast(entry.arrays(), jnp.float64))

        def of_kept(*values):
            full = list(arrays)
            for place, value in zip(kept, values, strict=True):
                full[place] = value
            return entry(*full)

        check_grads(jax.jit(of_kept), [arrays[i] for i in kept], order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@every_loss
@pytest.mark.parametrize("devices, how", GRID, ids=lambda x: str(x))
def test_devices_share_one_loss(entry, devices, how):
    with jax.enable_x64(True):
        arrays = entry.arrays()
        value, gradients = compiled(entry)(*arrays)
        spread_value, spread_gradients = loss_and_gradients(entry, arrays, devices, how)
        np.testing.assert_allclose(spread_value, value, rtol=1e-10, atol=1e-12)
        for one, other in zip(gradients, spread_gradients, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


STREAMING = [entry for entry in ENTRIES if "implementation" in inspect.signature(entry.loss).parameters]


@pytest.mark.parametrize("implementation", ["streamed", "ring"])
@pytest.mark.parametrize("entry", STREAMING, ids=lambda entry: entry.name)
def test_implementations_share_one_loss(entry, implementation):
    other = dataclasses.replace(entry, settings={**entry.settings, "implementation": implementation})
    with jax.enable_x64(True):
        arrays = entry.arrays()
        value, gradients = compiled(entry)(*arrays)
        spread_value, spread_gradients = loss_and_gradients(other, arrays, 8, "shard_map")
        np.testing.assert_allclose(spread_value, value, rtol=1e-10, atol=1e-12)
        for one, other in zip(gradients, spread_gradients, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


@every_loss
def test_the_batch_may_be_spread_over_two_axes(entry):
    with jax.enable_x64(True):
        arrays = entry.arrays()
        value, gradients = compiled(entry)(*arrays)
        spread_value, spread_gradients = loss_and_gradients(
            entry, arrays, 8, "shard_map", names=("slice", "chip")
        )
        np.testing.assert_allclose(spread_value, value, rtol=1e-10, atol=1e-12)
        for one, other in zip(gradients, spread_gradients, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


@every_loss
def test_stopped_inputs_get_exactly_nothing(entry):
    _, gradients = compiled(entry)(*cast(entry.arrays(), jnp.float32))
    for place, gradient in enumerate(gradients):
        assert (np.abs(gradient).max() == 0) == (place in entry.stopped)


@every_loss
def test_rows_may_be_scaled_and_permuted(entry):
    with jax.enable_x64(True):
        arrays = entry.arrays()
        value = value_of(entry)(*cast(arrays, jnp.float64))
        generator = np.random.default_rng(1)
        order = generator.permutation(ROWS)
        factors = generator.uniform(0.1, 1e4, size=(ROWS, 1))
        for changed in ([a[order] for a in arrays], [a * factors for a in arrays]):
            np.testing.assert_allclose(value_of(entry)(*cast(changed, jnp.float64)), value, rtol=1e-10)


@every_loss
def test_bfloat16_is_welcome(entry):
    arrays = entry.arrays()
    value = value_of(entry)(*cast(arrays, jnp.bfloat16))
    assert value.dtype == jnp.float32
    exact = entry.oracle(*arrays)
    assert abs(value - exact) <= entry.bfloat16_tolerance * max(1.0, abs(exact))


def degenerate(entry):
    arrays = entry.arrays()
    one = np.ones((ROWS, WIDTH))
    spike = [np.where(np.arange(ROWS)[:, None] == 3, 1e30, 1.0) * a for a in arrays]
    yield "collapsed", [one for _ in arrays]
    yield "equal views", [arrays[0] for _ in arrays]
    yield "duplicated", [np.repeat(a[:2], ROWS // 2, axis=0) for a in arrays]
    yield "zero", [np.zeros_like(a) for a in arrays]
    yield "one zero row", [a * (np.arange(ROWS)[:, None] != 3) for a in arrays]
    yield "huge row", spike
    yield "tiny", [1e-30 * a for a in arrays]
    yield "opposite", [a if place % 2 else -a for place, a in enumerate([arrays[0]] * len(arrays))]


@every_loss
def test_degenerate_inputs_stay_finite(entry):
    for name, arrays in degenerate(entry):
        value, gradients = compiled(entry)(*cast(arrays, jnp.float32))
        assert np.isfinite(value), name
        assert all(np.isfinite(gradient).all() for gradient in gradients), name


@every_loss
def test_a_second_call_compiles_nothing(entry):
    traces = []

    @jax.jit
    def traced(*arrays):
        traces.append(None)
        return entry(*arrays)

    for seed in range(2):
        traced(*cast(entry.arrays(seed), jnp.float32))
    assert len(traces) == 1


@every_loss
def test_bad_embeddings_are_refused(entry):
    good = cast(entry.arrays(), jnp.float32)
    with pytest.raises(ValueError, match=r"\[b, D\].*got shape \(6,\)"):
        entry(good[0][0], *good[1:])
    with pytest.raises(ValueError, match=r"one shape.*\(16, 6\) and \(15, 6\)"):
        entry(*good[:-1], good[-1][:-1])
    with pytest.raises(TypeError, match="floats, got int32"):
        entry(*good[:-1], jnp.ones((ROWS, WIDTH), jnp.int32))
    with pytest.raises(TypeError, match="got list"):
        entry(*good[:-1], [[1.0]])
    with pytest.raises(ValueError, match="at least 1"):
        entry(*(a[:0] for a in good))


@every_loss
def test_bad_hyper_parameters_are_refused(entry):
    good = cast(entry.arrays(), jnp.float32)
    for name in {"temperature", "eps", "logit_divisor"} & entry.settings.keys():
        for bad in (0, -1.0, float("nan")):
            with pytest.raises(ValueError, match=f"{name} must be finite and more than zero"):
                entry.loss(*good, **{**entry.settings, name: bad})
        with pytest.raises(TypeError, match="must be a number"):
            entry.loss(*good, **{**entry.settings, name: "0.1"})


@every_loss
def test_a_scheduled_temperature_is_accepted(entry):
    if "temperature" not in entry.settings:
        return
    good = cast(entry.arrays(), jnp.float32)
    settings = {**entry.settings}
    temperature = settings.pop("temperature")
    scheduled = jax.jit(lambda t: entry.loss(*good, **settings, temperature=t))
    np.testing.assert_allclose(scheduled(jnp.float32(temperature)), value_of(entry)(*good), rtol=1e-6)
