"""Digests of leaves: they see every bit and its place, of every type, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.runs.digests import digests, host_digest

DTYPES = (
    "float32",
    "bfloat16",
    "float16",
    "float8_e4m3fn",
    "int32",
    "int8",
    "uint16",
    "int4",
    "bool",
    "complex64",
)


def digest(leaf):
    return digests([leaf])["[0]"]


def mixed(words):
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))


def test_it_is_the_sum_of_mixed_words():
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    words = values.view(np.uint32).reshape(-1)
    terms = mixed(words ^ mixed(np.arange(15, dtype=np.uint32)))
    assert digest(values) == f"{terms.astype(np.uint64).sum() % 2**32:08x}"
    assert host_digest(values) == digest(values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_value_or_another_order_is_another_digest(dtype):
    rows = [
        [1, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 0, 1, 1, 0, 1],
        [0, 0, 1, 1, 0, 1],
        [0, 1, 1, 1, 0, 0],
    ]
    arrays = [jnp.array(row, dtype) for row in rows]
    assert len({digest(array) for array in arrays}) == len(rows)
    for array in arrays:
        assert host_digest(np.asarray(array)) == digest(array)


def test_every_single_bit_counts():
    values = np.linspace(-1, 1, 4, dtype=np.float32)
    seen = {digest(values)}
    for bit in range(32 * values.size):
        flipped = values.copy()
        flipped.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        seen.add(digest(flipped))
    assert len(seen) == 1 + 32 * values.size


def test_signs_of_zero_nan_payloads_float64_and_keys():
    assert digest(np.float32(0.0)) != digest(np.float32(-0.0))
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert digest(nans[:1]) != digest(nans[1:])
    assert digest(jax.random.key(0)) != digest(jax.random.key(1))
    with jax.enable_x64(True):
        low = np.array([1.0, np.nextafter(1.0, 2.0)])
        assert digest(low[:1]) != digest(low[1:])


def test_devices_do_not_matter_and_paths_name_leaves():
    values = jnp.arange(64.0).reshape(8, 8)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = [
        jax.device_put(values, jax.sharding.NamedSharding(mesh, spec))
        for spec in (jax.P(), jax.P(None, "batch"))
    ]
    assert {digest(leaf) for leaf in spread} == {digest(values)}
    assert list(digests({"a": {"b": values}, "c": [values]})) == ["['a']['b']", "['c'][0]"]
