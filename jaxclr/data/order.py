"""The order in which an epoch visits the images."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

# Image draws of step t use fold_in(key(seed), t); no run has as many steps as this number, so the
# orders of epochs share no key with them.
STREAM = 0xE70C04DE


def epoch_order(seed: int, epoch: int | Array, size: int) -> Array:
    r"""A permutation of the images for one epoch, which depends on nothing but its arguments.

    .. math:: \operatorname{permutation}(\operatorname{fold\_in}(
              \operatorname{fold\_in}(\operatorname{key}(s), \text{STREAM}), e), N)

    Threefry keys whatever the default generator, so that all platforms visit the same images.

    Args:
      seed: seed of the run.
      epoch: number of the epoch, from 0.
      size: number of images.

    Returns:
      int32 [size].

    Raises:
      ValueError: size is not positive.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}.")
    return _permutation(jax.random.key(seed, impl="threefry2x32"), epoch, size)


@functools.partial(jax.jit, static_argnums=2)
def _permutation(key: Array, epoch: int | Array, size: int) -> Array:
    key = jax.random.fold_in(jax.random.fold_in(key, STREAM), epoch)
    return jax.random.permutation(key, size).astype(jnp.int32)
