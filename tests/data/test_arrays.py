"""Sources that hold arrays (digits and npz), statistics and orders."""

import io
import tracemalloc
import zipfile

import jax
import numpy as np
import pytest

from jaxclr.data import Arrays, Data, channel_statistics, epoch_order, load
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


WHOLE = RNG.integers(0, 256, (40, 6, 5, 3))
WHOLE[0, 0, 0] = 0, 128, 255


@pytest.mark.parametrize(
    ("stored", "want"),
    [
        *((WHOLE.astype(dtype), WHOLE) for dtype in ("int64", "uint16", "float32", "float16")),
        *(((WHOLE / 255).astype(dtype), WHOLE) for dtype in ("float64", "float32", "float16")),
        (WHOLE.astype(np.float32) * np.float32(1 / 255), WHOLE),
        (WHOLE > 127, np.where(WHOLE > 127, 255, 0)),
        ((WHOLE > 127).astype(np.int32), WHOLE > 127),
        ((WHOLE > 127).astype(np.float32), np.where(WHOLE > 127, 255, 0)),
    ],
    ids=lambda array: str(array.dtype),
)
def test_npz_converts_what_loses_nothing(save, stored, want):
    dataset = _load(save(x_train=stored, x_test=stored[:7]))
    assert dataset.train.examples.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.examples, want)
    np.testing.assert_array_equal(dataset.test.examples, want[:7])
    (note,) = dataset.notes
    assert f"Images of {stored.dtype}" in note and "nothing is lost" in note


@pytest.mark.parametrize(
    "stored",
    [
        WHOLE + 0.5,
        (WHOLE / 254).astype(np.float32).clip(0, 1),
        WHOLE - 3,
        WHOLE * 16,
        WHOLE / 255 * 2 - 1,
        np.where(WHOLE > 3, WHOLE / 255, np.nan),
    ],
)
def test_npz_refuses_what_loses_and_the_line_it_gives_converts(save, stored):
    with pytest.raises(UserError, match="must be uint8 of 0 to 255, got .* Convert them") as caught:
        _load(save(images=stored))
    names = {"images": stored, "np": np}
    exec(str(caught.value).partition("for instance ")[2].removesuffix("."), names)
    converted = _load(save(images=names["images"])).train.examples
    assert converted.dtype == np.uint8 and np.ptp(converted) > 200


@pytest.mark.parametrize("shape", [(40, 3, 8, 9), (40, 1, 8, 8), (40, 13, 16, 16)])
def test_channels_first(save, shape):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    path = save(images=images)
    with pytest.raises(UserError, match=r"look like \[N, C, H, W\]; give --data.layout NCHW"):
        _load(path)
    first = _load(path, layout="NCHW", test_fraction=0.0).train.examples
    np.testing.assert_array_equal(first, np.moveaxis(images, 1, -1))
    last = _load(path, layout="NHWC", test_fraction=0.0).train.examples
    np.testing.assert_array_equal(last, images)
    with pytest.raises(UserError, match=r"look like images \[N, C, H, W\]; give np.moveaxis"):
        Arrays(images)


@pytest.mark.parametrize("labels", [LABELS - 1, np.where(LABELS == 3, -1, LABELS)])
@pytest.mark.parametrize("source", ["npz", "arrays"])
def test_the_label_minus_one_is_no_label(save, labels, source):
    """It stays -1, is no class, and is only in training where one split is divided."""
    if source == "npz":
        dataset = _load(save(images=IMAGES, labels=labels))
        assert (dataset.train.labels == -1).sum() == 10 and (dataset.test.labels >= 0).all()
        assert dataset.test.size == 6 and np.bincount(dataset.test.labels).tolist() == [2] * 3
    else:
        dataset = load(Arrays(IMAGES, labels, IMAGES[:8], labels[:8]))
        assert (dataset.train.labels == -1).sum() == 10 and (dataset.test.labels == -1).sum() == 2
    assert dataset.classes == ("0", "1", "2") and dataset.train.labeled
    assert "10 of the 40" in dataset.notes[0] and "have no label (-1)" in dataset.notes[0]


def test_a_split_without_labels_beside_a_labeled_one(save):
    arrays = dict(x_train=IMAGES, y_train=np.full(40, -1), x_test=IMAGES, y_test=LABELS)
    dataset = _load(save(**arrays))
    assert not dataset.train.labeled and dataset.test.labeled
    assert dataset.classes == ("0", "1", "2", "3")
    dataset = _load(save(**{**arrays, "y_train": LABELS, "y_test": np.full(40, -1)}))
    assert dataset.train.labeled and not dataset.test.labeled
    with pytest.raises(UserError, match="a label is -2; give integers from 0, or -1 for no label"):
        _load(save(images=IMAGES, labels=LABELS - 2))


def test_npz_labels_are_ignored(save):
    path = save(images=IMAGES, labels=np.zeros((40, 5)))
    with pytest.raises(UserError, match="--data.labels none leaves them out|integers or strings"):
        _load(path)
    dataset = _load(path, labels="none")
    assert not dataset.train.labeled and dataset.classes == ()
    assert not load(Data(labels="none")).train.labeled


@pytest.mark.parametrize("member", ["images", "labels", "header"])
def test_members_that_unpack_to_too_much_are_refused_from_their_headers(tmp_path, member):
    """Nothing of them is unpacked: the file has headers and no data."""
    shape = (4, 8, 8, 3) if member != "images" else (4, 1000, 1000, 3)
    headers = {"images": ("|u1", shape), "labels": ("<i8", (4,))}
    if member == "labels":
        headers["labels"] = ("<U100000000", (4,))
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (descr, some) in headers.items():
            stored = io.BytesIO()
            header = {"descr": descr, "fortran_order": False, "shape": some}
            np.lib.format.write_array_header_2_0(stored, header)
            data = stored.getvalue()
            if member == "header" and name == "labels":
                data = data[:8] + (2**28).to_bytes(4, "little") + b" " * 1000
            archive.writestr(f"{name}.npy", data)
    message = {
        "images": "4 images of 1000x1000x3 take|images, uint8 .*, unpack to",
        "labels": r"labels, <U100000000 \[4\], unpack to 1.49 GiB; data.memory_limit is 0.005",
        "header": "damaged and cannot be read .the header of labels.npy has 268435456 bytes",
    }[member]
    tracemalloc.start()
    with pytest.raises(UserError, match=message):
        _load(path, memory_limit=0.005)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_npz_refuses_files(save, tmp_path):
    with pytest.raises(UserError, match="nowhere.npz' does not exist; give a file"):
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
