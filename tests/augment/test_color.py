"""Colors against Pillow and scikit-image; the order of the jitter against a plain loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
from PIL import Image, ImageEnhance, ImageOps

from jaxclr import augment

color_jitter = jax.jit(augment.color_jitter)

FACTORS = np.array([0.3, 1.0, 1.7], np.float32)


@pytest.mark.parametrize(
    ("ours", "pillows"),
    [
        (augment.adjust_brightness, ImageEnhance.Brightness),
        (augment.adjust_contrast, ImageEnhance.Contrast),
        (augment.adjust_saturation, ImageEnhance.Color),
    ],
)
def test_blends_are_pillows(photos, floats, ours, pillows):
    got = np.asarray(jax.jit(ours)(floats, FACTORS))
    for image, factor, result in zip(photos, FACTORS, got, strict=True):
        wanted = np.asarray(pillows(Image.fromarray(image)).enhance(float(factor)))
        np.testing.assert_allclose(255 * result, wanted, atol=1.5)


def hue_of_scikit_image(image, shift):
    hsv = skimage.color.rgb2hsv(np.asarray(image, float))
    hsv[..., 0] = (hsv[..., 0] + shift) % 1
    return skimage.color.hsv2rgb(hsv)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.0, 0.07, 0.5])
def test_hue_is_scikit_images(floats, shift):
    got = np.asarray(jax.jit(augment.adjust_hue)(floats, jnp.full(3, shift)))
    for image, result in zip(floats, got, strict=True):
        np.testing.assert_allclose(result, hue_of_scikit_image(image, shift), atol=1e-5)


def test_hue_of_gray_black_and_white_pixels_stays():
    levels = jnp.linspace(0, 1, 5)[None, None, :, None] * jnp.ones((1, 1, 1, 3))
    np.testing.assert_array_equal(augment.adjust_hue(levels, jnp.array([0.3])), levels)


def test_grayscale_is_pillows(photos, floats):
    got = np.asarray(augment.grayscale(floats, jnp.array([True, True, False])))
    np.testing.assert_array_equal(got[2], floats[2])
    for image, result in zip(photos[:2], got, strict=False):
        wanted = np.asarray(ImageOps.grayscale(Image.fromarray(image)))
        np.testing.assert_allclose(255 * result, np.stack([wanted] * 3, -1), atol=0.51)


def test_solarize_is_pillows(photos, floats):
    got = np.asarray(augment.solarize(floats, jnp.array([True, True, False])))
    np.testing.assert_array_equal(got[2], floats[2])
    for image, result in zip(photos[:2], got, strict=False):
        wanted = np.asarray(ImageOps.solarize(Image.fromarray(image), 128))
        np.testing.assert_allclose(255 * result, wanted, atol=1e-4)


def one_after_the_other(image, strengths, order):
    """The definition, in NumPy: clipped blends and scikit-image's hue."""

    def gray(x):
        return x @ np.array([0.299, 0.587, 0.114])

    for which in order:
        base = (0, gray(image).mean(), gray(image)[..., None], None)[which]
        if which == 3:
            image = hue_of_scikit_image(image, strengths[3])
        else:
            image = np.clip(strengths[which] * image + (1 - strengths[which]) * base, 0, 1)
    return image


def test_jitter_in_every_order(floats):
    orders = np.array(list(itertools.permutations(range(4))))
    strengths = np.random.default_rng(0).uniform(
        [0.4, 0.4, 0.4, -0.2], [1.6, 1.6, 1.6, 0.2], (24, 4)
    )
    images = np.resize(floats[:, 20:50, 30:60], (24, 30, 30, 3)).astype(float)
    with jax.enable_x64(True):
        got = color_jitter(images, *jnp.asarray(strengths).T, orders)
    for image, strength, order, result in zip(images, strengths, orders, got, strict=True):
        np.testing.assert_allclose(result, one_after_the_other(image, strength, order), atol=1e-12)
    assert len({np.asarray(x).tobytes() for x in got[::3]}) == 8  # the order does matter


def test_jitter_without_some_operations(floats):
    order = jnp.array([[3, 1, 0, 2]] * 3)
    factors = jnp.asarray(FACTORS)
    bright = color_jitter(floats, factors, None, None, None, order)
    np.testing.assert_allclose(bright, augment.adjust_brightness(floats, factors), atol=1e-6)
    hue = color_jitter(floats, None, None, None, factors - 1, order)
    np.testing.assert_allclose(hue, augment.adjust_hue(floats, factors - 1), atol=1e-6)
    one = color_jitter(floats[..., :1], None, factors, None, None, order)
    np.testing.assert_allclose(one, augment.adjust_contrast(floats[..., :1], factors), atol=1e-6)


def test_neutral_factors_change_nothing(floats):
    one, order = jnp.ones(3), jnp.array([[0, 1, 2, 3]] * 3)
    np.testing.assert_array_equal(color_jitter(floats, one, one, one, 0 * one, order), floats)


def test_color_operations_want_three_channels(floats):
    with pytest.raises(ValueError, match=r"\[b, H, W, 3\], got \(3, 90, 120, 1\)"):
        augment.adjust_saturation(floats[..., :1], jnp.ones(3))
