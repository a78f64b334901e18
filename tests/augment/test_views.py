"""What a view promises: its own key alone, its probabilities, its range and its type."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

from jaxclr.augment import DigitView, PhotoView, crop_box, crop_resize, resize
from jaxclr.errors import UserError

EVERYTHING = PhotoView(
    size=24, jitter=0.9, grayscale=0.3, blur=0.5, blur_sigma=(0.1, 1.0), solarize=0.3
)
ONLY_CROP = PhotoView(size=24, flip=0, jitter=0, grayscale=0)
WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


def keys(n: int, seed: int = 0):
    return jax.random.split(jax.random.key(seed), n)


@pytest.fixture(scope="module")
def images(photos):
    """[16, 40, 40, 3], uint8, all different."""
    return np.stack([photos[i % 3, i : i + 40, 2 * i : 2 * i + 40] for i in range(16)])


@pytest.fixture(scope="module")
def digits():
    """[16, 8, 8, 1], uint8."""
    data = sklearn.datasets.load_digits().images[:16, :, :, None]
    return (data * 255 / 16).astype(np.uint8)


@functools.cache
def jitted(view):
    return jax.jit(view)


@pytest.mark.parametrize("view", [EVERYTHING, PhotoView(size=20), DigitView()])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_range(images, view, channels):
    got = np.asarray(jitted(view)(keys(16), images[..., :channels]))
    side = 40 if isinstance(view, DigitView) else view.size
    assert got.shape == (16, side, side, channels) and got.dtype == np.float32
    assert np.isfinite(got).all() and got.min() >= 0 and got.max() <= 1
    assert len({image.tobytes() for image in got}) == 16


@pytest.mark.parametrize("view", [EVERYTHING, DigitView()])
def test_float64_everywhere(images, view):
    """Not only the type: nothing on the way may have been float32."""
    with jax.enable_x64(True):
        text = jax.jit(view).lower(keys(16), images).as_text()
        got = jax.jit(view)(keys(16), images)
    assert got.dtype == np.float64
    assert "f32" not in text


@pytest.mark.parametrize("view", [EVERYTHING, DigitView()])
def test_an_image_depends_on_its_own_key_only(images, view):
    order = np.random.default_rng(0).permutation(16)
    with jax.enable_x64(True):
        run = jax.jit(view)
        whole = np.asarray(run(keys(16), images))
        permuted = np.asarray(run(keys(16)[order], images[order]))
        parts = np.concatenate(
            [run(keys(16)[i : i + 2], images[i : i + 2]) for i in range(0, 16, 2)]
        )
    np.testing.assert_allclose(permuted, whole[order], atol=1e-13)
    np.testing.assert_allclose(parts, whole, atol=1e-13)


def test_sharding_changes_nothing(images):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("batch")
    sharded = jax.jit(jax.shard_map(EVERYTHING, mesh=mesh, in_specs=spec, out_specs=spec))
    np.testing.assert_allclose(
        sharded(keys(16), images), jitted(EVERYTHING)(keys(16), images), atol=1e-5
    )


def changed(view, images):
    """Fraction of images in which a view of the whole image differs from the image."""
    got = jitted(view)(keys(len(images)), images)
    return np.mean(np.abs(got - resize(images, view.size)).max((1, 2, 3)) > 1e-4)


@pytest.mark.parametrize("name", ["flip", "jitter", "grayscale", "blur", "solarize"])
@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_probabilities(images, name, probability):
    nothing = dict.fromkeys(("flip", "jitter", "grayscale", "blur", "solarize"), 0.0)
    nothing[name] = probability
    view = PhotoView(size=12, **nothing, **WHOLE, blur_sigma=(1.0, 2.0))
    many = np.tile(images[:, ::3, ::3][:, :12, :12], (20, 1, 1, 1))
    # 320 coins: five standard deviations are 0.13.
    assert changed(view, many) == pytest.approx(probability, abs=0.13 if 0 < probability < 1 else 0)


def test_jitter_takes_every_order(images, monkeypatch):
    def paint_order(x, *strengths, order):
        return x.at[:, 0, :4, 0].set(order / 4)

    monkeypatch.setattr("jaxclr.augment.image_views.color_jitter", paint_order)
    view = PhotoView(size=8, flip=0, grayscale=0)
    painted = jax.jit(view)(keys(600), np.tile(images[:1, :8, :8], (600, 1, 1, 1)))
    orders, counts = np.unique(4 * painted[:, 0, :4, 0], axis=0, return_counts=True)
    assert len(orders) == 24 and (np.sort(orders, axis=1) == np.arange(4)).all()
    assert counts.min() > 5 and counts.max() < 60  # 25 expected


@pytest.mark.parametrize("shape", [(40, 40), (30, 90)])
def test_boxes_are_distributed_as_torchvisions(shape):
    """Against the rule itself, drawn in NumPy: the first of ten draws that fits."""
    height, width = shape
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    rng = np.random.default_rng(0)
    draw = jax.jit(lambda draws: crop_box(draws, height, width, scale, ratio))
    top, left, h, w = map(np.asarray, draw(rng.random((4000, 22), np.float32)))
    assert top.min() >= 0 and left.min() >= 0
    assert (top + h).max() <= height and (left + w).max() <= width
    assert h.min() >= 1 and w.min() >= 1

    wanted = []
    while len(wanted) < 4000:
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
            w0, h0 = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w0 <= width and 0 < h0 <= height:
                place = rng.integers(height - h0 + 1), rng.integers(width - w0 + 1)
                wanted.append((*place, h0, w0))
                break
        else:
            h0, w0 = height, min(width, round(height * ratio[1]))
            wanted.append(((height - h0) // 2, (width - w0) // 2, h0, w0))
    for got, reference in zip((top, left, h, w), np.array(wanted).T, strict=True):
        steps = np.linspace(0, max(shape), 15)
        cumulative = [(x[:, None] <= steps).mean(0) for x in (got, reference)]
        np.testing.assert_allclose(*cumulative, atol=0.045)  # Kolmogorov-Smirnov, p = 0.0006


def test_a_box_that_never_fits_falls_back_to_the_center():
    for (height, width), box in {(10, 100): (0, 43, 10, 13), (100, 10): (43, 0, 13, 10)}.items():
        draws = np.random.default_rng(0).random((3, 22))
        got = crop_box(draws, height, width, (0.9, 1.0), (3 / 4, 4 / 3))
        np.testing.assert_array_equal(np.stack(got, 1), [box] * 3)


def test_a_view_that_only_crops_is_the_crop_of_its_box(images):
    """And the box is drawn from the key."""

    @jax.jit
    def crop(keys, images):
        draws = jax.vmap(lambda key: jax.random.uniform(key, (36,)))(keys)[:, :22]
        box = crop_box(draws, 40, 40, ONLY_CROP.crop_scale, ONLY_CROP.crop_ratio)
        return crop_resize(images / jnp.float32(255), *box, 24)

    wanted = crop(keys(16), images)
    np.testing.assert_allclose(jitted(ONLY_CROP)(keys(16), images), wanted, atol=1e-6)


def test_digits_keep_their_place_and_are_not_mirrored(digits):
    still = DigitView(rotation=0, scale=(1, 1), shift=0, erase=0, noise=0)
    np.testing.assert_allclose(jitted(still)(keys(16), digits), digits / 255, atol=1e-6)
    many = np.tile(digits, (20, 1, 1, 1))
    mean = np.asarray(jitted(DigitView(erase=0, noise=0))(keys(320), many)).mean(0)
    plain = (digits / 255).mean(0)
    assert np.corrcoef(mean.ravel(), plain.ravel())[0, 1] > 0.97


def test_digits_are_erased_with_the_given_probability_and_size():
    white = np.full((400, 20, 20, 1), 255, np.uint8)
    for probability in (0.0, 0.5, 1.0):
        view = DigitView(0, (1, 1), 0, erase=probability, erase_size=(0.2, 0.5), noise=0)
        black = np.asarray(jitted(view)(keys(400), white))[..., 0] == 0
        erased = black.any((1, 2))
        assert abs(erased.mean() - probability) <= (0.13 if 0 < probability < 1 else 0)
        for sides in (black.any(1).sum(1)[erased], black.any(2).sum(1)[erased]):
            assert all(4 <= side <= 10 for side in sides)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PhotoView(size=0), "PhotoView.size must be at least 1, got 0"),
        (lambda: PhotoView(flip=1.5), "PhotoView.flip must be at least 0 and at most 1, got 1.5"),
        (lambda: PhotoView(brightness=-0.1), "brightness must be at least 0, got -0.1"),
        (lambda: PhotoView(hue=0.6), "hue must be at least 0 and at most 0.5, got 0.6"),
        (
            lambda: PhotoView(crop_scale=(0.0, 1.0)),
            "crop_scale[0] must be greater than 0 and at most 1, got 0.0",
        ),
        (
            lambda: PhotoView(crop_ratio=(2.0, 1.0)),
            "PhotoView.crop_ratio must be the least value, then the greatest, got (2.0, 1.0)",
        ),
        (lambda: PhotoView(blur=math.nan), "blur must be a finite number, got nan"),
        (
            lambda: DigitView(rotation=200.0),
            "DigitView.rotation must be at least 0 and at most 180, got 200.0",
        ),
        (
            lambda: DigitView(erase_size=(0.1, 2.0)),
            "erase_size[1] must be greater than 0 and at most 1, got 2.0",
        ),
        (lambda: DigitView(noise=-1.0), "noise must be at least 0, got -1.0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(UserError, match=re.escape(message)):
        make()


def test_bad_calls_are_refused(images, digits):
    with pytest.raises(TypeError, match="typed keys"):
        DigitView()(jnp.zeros((16, 2), jnp.uint32), digits)
    with pytest.raises(ValueError, match=r"got keys \(3,\) for 16 images"):
        PhotoView()(keys(3), images)
    with pytest.raises(TypeError, match="uint8"):
        PhotoView()(keys(16), images / 255)
