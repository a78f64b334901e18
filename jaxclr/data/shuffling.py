"""The order of the training images in an epoch."""

import numpy as np

from jaxclr.data import threefry

# Views of step t use fold_in(key(seed), t). No run has this many steps, so views and epoch orders
# never share a key.
STREAM = 0xE70C04DE


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    r"""The permutation of the images for one epoch; it depends only on the arguments.

    .. math:: \operatorname{permutation}(\operatorname{fold\_in}(
              \operatorname{fold\_in}(\operatorname{key}(s), \text{STREAM}), e), N)

    It is computed on the host, so that worker processes without a device can compute it too: about
    a second for a million images. Keys are Threefry keys whatever JAX's default generator, so that
    the order is the same on all platforms.

    >>> sorted(jaxclr.data.epoch_order(seed=0, epoch=0, size=5).tolist())
    [0, 1, 2, 3, 4]

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
