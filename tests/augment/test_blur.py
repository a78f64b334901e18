"""The blur against scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import skimage.filters

from jaxclr import augment

gaussian_blur = jax.jit(augment.gaussian_blur)


def test_blur_is_scikit_images(floats):
    sigmas = np.array([0.1, 0.7, 2.0], np.float32)
    got = np.asarray(gaussian_blur(floats, sigmas))
    for image, sigma, result in zip(floats, sigmas, got, strict=True):
        wanted = skimage.filters.gaussian(
            image, float(sigma), mode="mirror", truncate=8, channel_axis=-1
        )
        np.testing.assert_allclose(result, wanted, atol=1e-5)


def test_blur_wider_than_the_image_meets_its_mirror_images(floats):
    image = floats[:1, 40:48, 60:66]
    got = gaussian_blur(image, jnp.array([2.5]))
    wanted = skimage.filters.gaussian(image[0], 2.5, mode="mirror", truncate=4, channel_axis=-1)
    np.testing.assert_allclose(got[0], wanted, atol=1e-3)


def test_blur_of_width_zero_changes_nothing(floats):
    np.testing.assert_array_equal(gaussian_blur(floats, jnp.zeros(3)), floats)
    pixel = jnp.full((1, 1, 1, 1), 0.3)
    np.testing.assert_allclose(gaussian_blur(pixel, jnp.ones(1)), pixel, rtol=1e-6)
