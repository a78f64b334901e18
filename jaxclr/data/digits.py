"""scikit-learn's digits: 1,797 grayscale images of 8x8, embedded in the package."""

import numpy as np

from jaxclr.data.dataset import Dataset, Split, check_fixed_size, check_not_streamed
from jaxclr.data.images import convert_channels
from jaxclr.data.source_options import Data


def load(argument: str, data: Data) -> Dataset:
    """The fixed stratified split into 1,437 and 360 images; its 0..16 are scaled to 0..255."""
    del argument
    check_not_streamed(data)
    # Half of what a worker process would spend on starting; it loads no digits.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    check_fixed_size(images.shape, data)
    images = convert_channels(images, data)
    labels = labels.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", Split(train_x, train_y), Split(test_x, test_y), classes, ())
