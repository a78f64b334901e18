"""JAX's random numbers in NumPy, for hosts and worker processes without a device.

The numbers equal those of ``jax.random`` with keys of ``impl="threefry2x32"``: crops have the same
boxes on the host as on a device (documented in README, "Data"; tested in
tests/data/test_stream.py), and epochs the same order. A key is a pair of uint32, scalars or arrays
of one shape.
"""

import numpy as np

Words = np.ndarray | np.uint32
Key = tuple[Words, Words]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def key(seed: int) -> Key:
    """``jax.random.key(seed)``."""
    return np.uint32(seed >> 32 & 0xFFFFFFFF), np.uint32(seed & 0xFFFFFFFF)


def fold_in(key: Key, data: int | np.ndarray) -> Key:
    """``jax.random.fold_in`` of key and data, broadcast; data are below 2**32."""
    return _hash(key, np.uint32(0), np.asarray(data, np.uint32))


def bits(key: Key, count: int) -> np.ndarray:
    """``jax.random.bits(key, (count,))``: uint32 [..., count]."""
    keys = np.asarray(key[0])[..., None], np.asarray(key[1])[..., None]
    first, second = _hash(keys, np.uint32(0), np.arange(count, dtype=np.uint32))
    return np.asarray(first ^ second)


def uniform(key: Key, count: int) -> np.ndarray:
    """``jax.random.uniform(key, (count,))``: float32 [..., count] in [0, 1), multiples of 2**-23.

    A draw depends on the key and its index only, not on the count.
    """
    return (bits(key, count) >> np.uint32(9)).astype(np.float32) * np.float32(2**-23)


def permutation(key: Key, size: int) -> np.ndarray:
    """``jax.random.permutation(key, size)``: int32 [size]; ties of its sorts are negligible."""
    order = np.arange(size, dtype=np.int32)
    for _ in range(int(np.ceil(3 * np.log(size) / np.log(2**32 - 1)))):
        key, subkey = fold_in(key, 0), fold_in(key, 1)
        order = order[np.argsort(bits(subkey, size), kind="stable")]
    return order


def _hash(key: Key, first: Words, second: Words) -> Key:
    """Threefry-2x32-20 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011)."""
    words = (*key, key[0] ^ key[1] ^ _PARITY)
    with np.errstate(over="ignore"):  # sums are modulo 2**32
        x, y = first + words[0], second + words[1]
        for group in range(5):
            for turn in _ROTATIONS[group % 2]:
                x = x + y
                y = (y << np.uint32(turn) | y >> np.uint32(32 - turn)) ^ x
            x = x + words[(group + 1) % 3]
            y = y + words[(group + 2) % 3] + np.uint32(group + 1)
    return x, y
