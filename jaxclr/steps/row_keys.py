"""Random keys whose draws for a row do not depend on where in the batch a device starts."""

import functools
import math
from collections.abc import Hashable

import jax
import jax.extend.random
import jax.numpy as jnp

Array = jax.Array
_ROWS = "threefry2x32"  # the generator of each row


def row_key(key: Array, first: Array, rows: int) -> Array:
    """A key for draws of any module that handles neighboring rows of the global batch.

    Draws whose first dimension is a multiple of `rows`, such as the masks of dropout, are those of
    the rows, in order: row i uses the key folded with its index in the global batch. They are equal
    for any number of devices and micro-batches. All other draws do not depend on the rows.

    >>> key = jax.random.key(0)
    >>> draw = lambda first, rows: jax.random.uniform(row_key(key, first, rows), (rows, 3))
    >>> bool((draw(0, 4)[2:] == draw(2, 2)).all())
    True

    Args:
      key: equal on all devices.
      first: index in the global batch of the first row, int32 [].
      rows: number of rows that are handled together.

    Returns:
      A typed key [], for the `rngs` of Flax or for `jax.random`.
    """
    base = jax.random.bits(key, (2,), jnp.uint32)
    data = jnp.append(base, jnp.asarray(first, jnp.uint32))
    return jax.random.wrap_key_data(data, impl=_generator(rows))  # pyright: ignore[reportArgumentType]


@functools.cache
def _generator(rows: int) -> Hashable:
    """The generator of keys uint32 [3]: a key of `_ROWS`, and the index of the first row."""

    def seed(number: Array) -> Array:
        return jnp.append(_data(jax.random.key(number, impl=_ROWS)), jnp.uint32(0))

    def split(data: Array, shape: tuple[int, ...]) -> Array:
        keys = _data(jax.random.split(_key(data), shape))
        return jnp.concatenate([keys, jnp.broadcast_to(data[2:], (*shape, 1))], axis=-1)

    def fold_in(data: Array, number: int | Array) -> Array:
        return jnp.append(_data(jax.random.fold_in(_key(data), number)), data[2])

    def random_bits(data: Array, width: int, shape: tuple[int, ...]) -> Array:
        bits = functools.partial(jax.random.bits, dtype=jnp.dtype(f"uint{width}"))
        if not shape or shape[0] % rows or not math.prod(shape):
            return bits(_key(data), shape)
        indices = data[2] + jnp.arange(rows, dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(_key(data), indices)
        return jax.vmap(lambda key: bits(key, (shape[0] // rows, *shape[1:])))(keys).reshape(shape)

    return jax.extend.random.define_prng_impl(
        key_shape=(3,),
        seed=seed,
        split=split,
        random_bits=random_bits,
        fold_in=fold_in,
        name=f"of {rows} rows",
        tag="rows",
    )


def _key(data: Array) -> Array:
    return jax.random.wrap_key_data(data[:2], impl=_ROWS)


_data = jax.random.key_data
