"""Peak rates of a device: matrix products, convolutions, and its memory."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Program(NamedTuple):
    """A call to time, and the work of one call.

    Attributes:
      call: starts it, and returns what is to be waited for.
      flops: floating-point operations of a call.
      bytes: what a call reads and writes, 0 where that is not what is asked.
    """

    call: Callable[[], Any]
    flops: float
    bytes: float = 0.0


def matrix_product(side: int, times: int) -> Program:
    """A chain of products of square bfloat16 matrices."""
    keys = jax.random.split(jax.random.key(0))
    x, w = (jax.random.normal(key, (side, side), jnp.bfloat16) for key in keys)
    w = w / math.sqrt(side)  # results keep their size
    program = repeated(lambda x, w: x @ w, times)
    return Program(lambda: program(x, w), 2.0 * side**3 * times)


def convolution(batch: int, side: int, channels: int, times: int) -> Program:
    """A chain of 3x3 bfloat16 convolutions of [batch, side, side, channels]."""
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (batch, side, side, channels), jnp.bfloat16)
    w = jax.random.normal(keys[1], (3, 3, channels, channels), jnp.bfloat16) / math.sqrt(
        9 * channels
    )
    convolve = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    program = repeated(convolve, times)
    return Program(lambda: program(x, w), 2.0 * 9 * channels**2 * side**2 * batch * times)


def memory(mebibytes: int, times: int) -> Program:
    """Passes that read a bfloat16 array and write one of the same size."""
    x = jnp.ones((mebibytes, 2**19), jnp.bfloat16)
    program = repeated(lambda x, w: x * w, times)
    half = jnp.asarray(0.5, jnp.bfloat16)
    return Program(lambda: program(x, half), 0.0, 2.0 * 2**20 * mebibytes * times)


def repeated(
    function: Callable[[Array, Array], Array], times: int
) -> Callable[[Array, Array], Array]:
    """A function of its own result, so often in one program: the host starts it once."""

    @jax.jit
    def program(x: Array, w: Array) -> Array:
        return jax.lax.fori_loop(0, times, lambda _, x: function(x, w), x)

    return program


def programs(
    *, sides: tuple[int, ...], batches: tuple[int, ...], channels: int, mebibytes: int, times: int
) -> dict[str, Callable[[], Program]]:
    """A function that makes each program, by name; only one at a time takes device memory."""
    made: dict[str, Callable[[], Program]] = {}
    for side in sides:
        made[f"matrix product {side}"] = functools.partial(matrix_product, side, times)
    for batch in batches:
        for side in (4, 8, 16):
            name = f"3x3 convolution {batch} x {side} x {side} x {channels}"
            made[name] = functools.partial(convolution, batch, side, channels, times)
    made[f"memory, {mebibytes} MiB"] = functools.partial(memory, mebibytes, times)
    return made
