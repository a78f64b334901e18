"""Crops against Pillow, warps against scikit-image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.transform
from PIL import Image, ImageOps

from jaxclr import augment

crop_resize = jax.jit(augment.crop_resize, static_argnums=5)
resize = jax.jit(augment.resize, static_argnums=1)

BOXES = [(0, 0, 90, 120), (10, 7, 31, 40), (50, 90, 40, 30)]  # top, left, height, width


@pytest.mark.parametrize("size", [8, 33, 64, 150])
def test_crop_resize_is_pillows(photos, floats, size):
    top, left, height, width = np.array(BOXES).T
    got = crop_resize(floats, top, left, height, width, size)
    assert got.shape == (3, size, size, 3)
    for image, (y, x, h, w), result in zip(photos, BOXES, np.asarray(got), strict=True):
        wanted = Image.fromarray(image).resize(
            (size, size), Image.Resampling.BILINEAR, box=(x, y, x + w, y + h)
        )
        np.testing.assert_allclose(255 * result, np.asarray(wanted), atol=1.5)


def test_crop_resize_takes_boxes_between_pixels(photos, floats):
    box = [jnp.array([value]) for value in (3.25, 10.5, 40.125, 61.75)]
    got = crop_resize(floats[:1], *box, 24)
    wanted = Image.fromarray(photos[0]).resize(
        (24, 24), Image.Resampling.BILINEAR, box=(10.5, 3.25, 72.25, 43.375)
    )
    np.testing.assert_allclose(255 * got[0], np.asarray(wanted), atol=1.5)


def test_crop_of_the_same_size_is_the_crop(floats):
    top, left, side = jnp.array([3, 9, 40]), jnp.array([5, 0, 88]), jnp.full(3, 32)
    got = crop_resize(floats, top, left, side, side, 32)
    for i in range(3):
        wanted = floats[i, top[i] : top[i] + 32, left[i] : left[i] + 32]
        np.testing.assert_allclose(got[i], wanted, atol=1e-6)


@pytest.mark.parametrize("size", [20, 128])
def test_resize_is_pillows(photos, size):
    got = resize(photos, size)
    assert got.dtype == jnp.float32 and got.min() >= 0 and got.max() <= 1
    for image, result in zip(photos, np.asarray(got), strict=True):
        wanted = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(255 * result, np.asarray(wanted), atol=1.5)


def test_resize_to_the_same_size_changes_nothing(photos):
    square = photos[:, :64, :64]
    got = resize(square, 64)
    np.testing.assert_allclose(got, square / 255, rtol=1e-6)
    assert got.max() <= 1


def test_resize_of_one_channel(photos):
    gray = np.asarray(resize(photos[..., 1:2], 20))
    np.testing.assert_allclose(gray, resize(photos, 20)[..., 1:2], atol=1e-6)


def test_flip_is_pillows(photos, floats):
    got = np.asarray(augment.flip(floats, jnp.array([True, False, True])))
    np.testing.assert_array_equal(got[1], floats[1])
    for i in (0, 2):
        wanted = np.asarray(ImageOps.mirror(Image.fromarray(photos[i])))
        np.testing.assert_allclose(255 * got[i], wanted, atol=1e-4)


def test_warp_is_scikit_images(floats):
    angle = np.array([0.0, 30.0, -100.0])
    scale = np.array([1.0, 0.7, 1.6])
    shift = np.array([[0.0, 0.0], [3.5, -8.0], [-20.25, 4.0]])
    with jax.enable_x64(True):
        matrix = jax.jit(augment.affine, static_argnums=(3, 4))(angle, scale, shift, 90, 120)
        got = np.asarray(jax.jit(augment.warp)(floats.astype(float), matrix))
    np.testing.assert_allclose(got[0], floats[0], atol=1e-9)
    for i in range(3):
        # Forward in scikit-image's words: to the center, turn and enlarge, back and shift.
        center = np.array([59.5, 44.5])
        forward = (
            skimage.transform.AffineTransform(translation=-center)
            + skimage.transform.AffineTransform(rotation=np.deg2rad(angle[i]), scale=scale[i])
            + skimage.transform.AffineTransform(translation=center + shift[i])
        )
        wanted = skimage.transform.warp(floats[i].astype(float), forward.inverse, order=1)
        np.testing.assert_allclose(got[i], wanted, atol=1e-6)


def test_erase_and_noise(floats):
    draw = [jnp.array(values) for values in ([2, 0, 80], [5, 0, 100], [3, 90, 10], [4, 120, 20])]
    got = np.asarray(jax.jit(augment.erase)(floats, *draw))
    for i, (y, x, h, w) in enumerate(zip(*map(np.asarray, draw), strict=True)):
        wanted = floats[i].copy()
        wanted[y : y + h, x : x + w] = 0
        np.testing.assert_array_equal(got[i], wanted)
    keys = jax.random.split(jax.random.key(0), 3)
    add_noise = jax.jit(augment.add_noise)
    noisy = np.asarray(add_noise(keys, jnp.full((3, 90, 120, 3), 0.5), 0.1))
    assert abs(noisy.mean() - 0.5) < 1e-3 and abs(noisy.std() - 0.1) < 1e-3
    assert not np.array_equal(noisy[0], noisy[1])
    extreme = np.asarray(add_noise(keys, floats, 10.0))
    assert extreme.min() == 0 and extreme.max() == 1


def test_bad_images_are_refused(photos, floats):
    with pytest.raises(ValueError, match=r"got shape \(90, 120, 3\)"):
        resize(photos[0], 32)
    with pytest.raises(TypeError, match="uint8 values in 0..255, got float32"):
        resize(floats, 32)
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        resize(photos, 0)
