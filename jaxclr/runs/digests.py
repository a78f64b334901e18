"""Digests of the leaves of a state, to verify every bit of a restored state."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

_CHUNK = 2**20  # words that are mixed at a time on the host


def digests(tree: Any) -> dict[str, str]:
    """Eight hexadecimal digits for each leaf, which depend on every bit and its position.

    Of a replicated leaf, the copy on this process's first device is read. All processes must call
    this if a leaf is spread over their devices.

    Leaves that differ in one 32-bit word always have different digests; other leaves that differ
    share a digest with probability 2**-32.

    Args:
      tree: arrays of any numbers or booleans, and typed keys.

    Returns:
      A digest by the path of its leaf, such as ".params['encoder']['kernel']".
    """
    leaves = jax.tree.leaves_with_path(tree)
    values = []
    for _, leaf in leaves:
        values.append(_digest(_one_copy(leaf)))
        if _is_spread_over_cpus(leaf):
            # Virtual devices share a pool of threads: two concurrent collectives can deadlock.
            jax.block_until_ready(values[-1])
    values = jax.device_get(values)
    return {
        jax.tree_util.keystr(path): f"{value:08x}"
        for (path, _), value in zip(leaves, values, strict=True)
    }


def host_digest(array: np.ndarray) -> str:
    """The digest of an array in host memory, computed without a device."""
    words = _host_words(np.ascontiguousarray(array)).reshape(-1)
    total = 0
    for start in range(0, words.size, _CHUNK):
        some = words[start : start + _CHUNK].astype(np.uint32)
        positions = np.arange(start, start + some.size).astype(np.uint32)
        total += int(np.sum(_mix(some ^ _mix(positions)), dtype=np.uint64))
    return f"{total % 2**32:08x}"


def _host_words(array: np.ndarray) -> np.ndarray:
    bits = min(jax.dtypes.itemsize_bits(array.dtype), 32)
    if bits < 8 or array.dtype == bool:
        return array.astype(np.uint8) & np.uint8(2**bits - 1)
    return array.view(f"uint{bits}")


def _one_copy(leaf: Array) -> Array:
    """The copy of a replicated array on one device; any other array unchanged."""
    replicated = isinstance(leaf, jax.Array) and leaf.is_fully_replicated
    return leaf.addressable_data(0) if replicated else leaf


def _is_spread_over_cpus(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_replicated:
        return False
    return next(iter(leaf.devices())).platform == "cpu"


@jax.jit
def _digest(leaf: Array) -> Array:
    r""":math:`\sum_p m(w_p \oplus m(p))` modulo 2**32 over 32-bit words w_p; m mixes bits.

    Integer sums are exact in any order, hence on any devices. Leaves of one shape and type share a
    program.
    """
    words = _words(leaf)
    # Row by row as of the flat array, which would gather an array that is split over devices.
    positions = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(words.shape):
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        positions = positions * np.uint32(size) + index
    return jnp.sum(_mix(words ^ _mix(positions)), dtype=jnp.uint32)


def _words(leaf: Array) -> Array:
    """The bits of each number of an array, in one unsigned 32-bit word or several."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag], axis=-1)
    if leaf.dtype == jnp.bool:
        return leaf.astype(jnp.uint32)
    bits = min(jax.dtypes.itemsize_bits(leaf.dtype), 32)
    return jax.lax.bitcast_convert_type(leaf, f"uint{bits}").astype(jnp.uint32)


def _mix(words: Any) -> Any:
    """MurmurHash3's finalizer: a bijection; each input bit flips about half of the output bits."""
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
