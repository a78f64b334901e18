"""The order in which an epoch visits the images."""

import numpy as np

from jaxclr.data import threefry

# Image draws of step t use fold_in(key(seed), t); no run has as many steps as this number, so the
# orders of epochs share no key with them.
STREAM = 0xE70C04DE


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    r"""A permutation of the images for one epoch, which depends on nothing but its arguments.

    .. math:: \operatorname{permutation}(\operatorname{fold\_in}(
              \operatorname{fold\_in}(\operatorname{key}(s), \text{STREAM}), e), N)

    Computed on the host, so that worker processes without a device agree on it: about a second for
    a million images. Threefry keys whatever the default generator, so that all platforms visit the
    same images.

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
    key = threefry.fold_in(threefry.fold_in(threefry.key(seed), STREAM), epoch)
    return threefry.permutation(key, size)
