"""Sources that hold arrays (digits and npz), statistics and orders."""

import jax
import numpy as np
import pytest

from jaxclr.data import Data, channel_statistics, epoch_order, load
from jaxclr.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


@pytest.fixture
def save(tmp_path):
    def save(**arrays):
        path = tmp_path / "set.npz"
        np.savez(path, **arrays)
        return path

    return save


def _load(path, **fields):
    return load(Data(f"npz:{path}", **fields))


def test_digits():
    first, second = load(Data()), load(Data())
    assert first.train.examples.shape == (1437, 8, 8, 1) and first.train.examples.dtype == np.uint8
    assert first.test.examples.shape == (360, 8, 8, 1) and first.test.labels.dtype == np.int32
    assert first.train.examples.max() == 255 and first.classes == tuple("0123456789")
    assert np.ptp(np.bincount(first.test.labels)) <= 2
    np.testing.assert_array_equal(first.train.examples, second.train.examples)
    assert load(Data(channels="rgb")).train.examples.shape == (1437, 8, 8, 3)
    with pytest.raises(UserError, match="'digits' holds arrays of 8x8, which are not resized"):
        load(Data(image_size=16))


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_npz_with_splits(save, names):
    arrays = (IMAGES[:30], LABELS[:30, None] + 3, IMAGES[30:], LABELS[30:] + 3)
    dataset = _load(save(**dict(zip(names, arrays, strict=False))))
    np.testing.assert_array_equal(dataset.train.examples, IMAGES[:30])
    np.testing.assert_array_equal(dataset.train.labels, LABELS[:30])
    np.testing.assert_array_equal(dataset.test.examples, IMAGES[30:])
    np.testing.assert_array_equal(dataset.test.labels, LABELS[30:])
    assert dataset.classes == ("3", "4", "5", "6") and dataset.name == "set"


def test_npz_without_splits(save):
    path = save(images=IMAGES, labels=np.array(list("abcd"))[LABELS])
    dataset = _load(path, test_fraction=0.3)
    assert (len(dataset.train.examples), len(dataset.test.examples)) == (28, 12)
    assert np.bincount(dataset.test.labels).tolist() == [3] * 4
    assert dataset.classes == ("a", "b", "c", "d")
    np.testing.assert_array_equal(
        dataset.train.examples, _load(path, test_fraction=0.3).train.examples
    )
    whole = _load(path, test_fraction=0.0)
    assert whole.test is None
    np.testing.assert_array_equal(whole.train.examples, IMAGES)


def test_npz_without_labels_and_channels(save):
    path = save(images=IMAGES[..., 0])
    dataset = _load(path)
    assert dataset.train.labels is None and dataset.test.labels is None and dataset.classes == ()
    assert dataset.train.examples.shape == (32, 6, 5, 1)
    assert _load(path, channels="rgb").train.examples.shape == (32, 6, 5, 3)
    gray = _load(save(images=IMAGES), channels="gray", test_fraction=0.0).train.examples
    luma = IMAGES @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(gray[..., 0], luma, atol=0.501)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(pictures=IMAGES), "has pictures; expected train_images, train_labels"),
        (dict(images=IMAGES / 3), "images must be uint8 of 0 to 255, got float64"),
        (dict(images=IMAGES[0, 0]), r"must be \[N, H, W\] or \[N, H, W, C\], got shape \(5, 3\)"),
        (dict(images=IMAGES[:0]), "are empty"),
        (dict(images=IMAGES, labels=LABELS[:7]), r"labels must be one per image, \[40\]"),
        (dict(images=IMAGES, labels=LABELS / 2), "must be integers or strings, got float64"),
        (dict(images=IMAGES, labels=np.array([None] * 40)), "got object"),
        (dict(x_train=IMAGES, x_test=IMAGES[:, :4]), r"x_train are \(6, 5, 3\) and x_test"),
        (dict(x_train=IMAGES, x_test=IMAGES, y_test=LABELS), "has y_test but no y_train"),
        (
            dict(x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS + 1),
            "label '4' is in test but not in train, which has 0, 1, 2, 3",
        ),
        (dict(images=IMAGES, labels=np.arange(40)), "cannot be split by data.test_fraction = 0.2"),
    ],
)
def test_npz_refuses(save, arrays, message):
    with pytest.raises(UserError, match=message):
        _load(save(**arrays))


def test_npz_refuses_files(save, tmp_path):
    with pytest.raises(UserError, match="There is no file .*nowhere.npz"):
        _load(tmp_path / "nowhere.npz")
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(UserError, match="text.npz' is not an .npz file"):
        _load(text)
    path = save(images=IMAGES)
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(UserError, match="set.npz' is damaged"):
        _load(path)
    with pytest.raises(UserError, match="have 3 channels|which are not resized"):
        _load(save(images=IMAGES), image_size=3)
    with pytest.raises(UserError, match="has 2 channels, which cannot be turned into rgb"):
        _load(save(images=IMAGES[..., :2]), channels="rgb")


def test_memory_is_checked_and_the_remedy_works(save):
    path = save(images=np.zeros((100, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="100 images of 64x64x3 take 0.00 GiB") as caught:
        _load(path, memory_limit=0.001)
    assert "--data.memory-limit 0.01 " in str(caught.value)
    assert "image-size" not in str(caught.value)  # arrays are not resized
    _load(path, memory_limit=0.01)


def test_channel_statistics():
    images = RNG.integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    images[..., 1] = 51
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)) / 255, rtol=1e-12)
    np.testing.assert_allclose(np.delete(std, 1), np.delete(images.std((0, 1, 2)), 1) / 255)
    assert std[1] == 1.0
    with pytest.raises(ValueError, match="must be uint8"):
        channel_statistics(images / 255.0)


def test_epoch_order():
    order = epoch_order(3, 5, 1000)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, epoch_order(3, np.int32(5), 1000))
    for other in (epoch_order(3, 6, 1000), epoch_order(4, 5, 1000)):
        assert np.mean(np.asarray(order) == np.asarray(other)) < 0.02
    image_stream = jax.random.permutation(jax.random.fold_in(jax.random.key(3), 5), 1000)
    assert np.mean(np.asarray(order) == np.asarray(image_stream)) < 0.02
    with pytest.raises(ValueError, match="at least 1, got 0"):
        epoch_order(0, 0, 0)
