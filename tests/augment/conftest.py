"""Real images to work on: three different pieces of one photograph."""

import numpy as np
import pytest
import skimage.data


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """[3, 90, 120, 3], uint8: hair, face and background."""
    astronaut = skimage.data.astronaut()
    corners = ((20, 180), (120, 200), (300, 0))
    return np.stack([astronaut[y : y + 90, x : x + 120] for y, x in corners])


@pytest.fixture(scope="session")
def floats(photos) -> np.ndarray:
    """The same as float32 in [0, 1]."""
    return photos.astype(np.float32) / 255
