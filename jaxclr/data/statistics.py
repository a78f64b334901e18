"""Mean and standard deviation of image channels."""

import numpy as np

CHUNK_PIXELS = 2**20


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    r"""Mean and standard deviation of each channel over all pixels of all images.

    .. math:: \mu_c = \operatorname{mean}(x_c) / 255, \quad
              \sigma_c = \sqrt{\operatorname{mean}(x_c^2) - \operatorname{mean}(x_c)^2} / 255

    Sums are exact, since they are sums of integers. A few MiB of memory suffice for any number of
    images.

    Args:
      images: uint8, [N, H, W, C].

    Returns:
      Two tuples of C numbers, for pixels scaled to [0, 1]. A constant channel has a standard
      deviation of 1, so that division by it is safe.

    Raises:
      ValueError: images are not uint8, not of rank 4, or empty.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise ValueError(
            f"images must be uint8 [N, H, W, C] with N > 0, got {images.dtype} {images.shape}."
        )
    channels = images.shape[-1]
    step = max(1, CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    histogram = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), step):
        pixels = images[start : start + step].reshape(-1, channels)
        for channel in range(channels):
            histogram[channel] += np.bincount(pixels[:, channel], minlength=256)
    count, values = int(histogram[0].sum()), np.arange(256)
    mean, std = [], []
    for row in histogram:
        total, squares = int(row @ values), int(row @ values**2)
        mean.append(total / count / 255)
        variance = (count * squares - total**2) / count**2  # Python integers: no cancellation
        std.append(variance**0.5 / 255 if variance > 0 else 1.0)
    return tuple(mean), tuple(std)
