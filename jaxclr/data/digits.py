"""scikit-learn's digits: 1,797 grayscale images of 8x8 pixels."""

import numpy as np

from jaxclr.data.dataset import Dataset, Split, check_fixed_size, check_not_streamed
from jaxclr.data.images import convert_channels
from jaxclr.data.source_options import Data


def load(argument: str, data: Data) -> Dataset:
    """scikit-learn's digits in a fixed stratified split: 1,437 train and 360 test images of 8x8."""
    del argument
    check_not_streamed(data)
    # Imported here because workers, which never load digits, would take twice as long to start.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    # Pixels are 0..16.
    images = np.round(pixels.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    check_fixed_size(images.shape, data)
    images = convert_channels(images, data)
    labels = labels.astype(np.int32)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    classes = tuple(str(digit) for digit in range(10))
    train = Split(train_x, np.asarray(train_y))
    test = Split(test_x, np.asarray(test_y))
    return Dataset("digits", train, test, classes, ())
