"""Folders of image files: splits, kinds of pixels, and everything that can be wrong with them."""

import zlib

import numpy as np
import pytest
from PIL import Image

from jaxclr.data import Data, load
from jaxclr.errors import UserError


def _save(path, size=(8, 8), mode="RGB", value=None):
    """Writes an image of `size` (width, height), of one value or of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    depth = {"L": (), "RGB": (3,), "RGBA": (4,)}.get(mode, (3,))
    pixels = rng.integers(0, 256, (size[1], size[0], *depth), dtype=np.uint8)
    if value is not None:
        pixels[:] = value
    image = Image.fromarray(pixels)
    if image.mode != mode:
        image = image.convert(mode)
    image.save(path)
    return np.asarray(image)


def _classes(root, names=("cat", "dog"), count=5, **options):
    for name in names:
        for index in range(count):
            _save(root / name / f"{index}.png", **options)


def _load(path, **fields):
    return load(Data(f"folder:{path}", **fields))


def test_class_folders_are_split_by_class(tmp_path):
    _classes(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    dataset = _load(tmp_path)
    assert dataset.classes == ("cat", "dog") and dataset.skipped == ()
    assert dataset.train.examples.shape == (8, 8, 8, 3) and dataset.train.labels.dtype == np.int32
    assert sorted(dataset.test.labels.tolist()) == [0, 1]
    again = _load(tmp_path)
    np.testing.assert_array_equal(dataset.train.examples, again.train.examples)
    assert _load(tmp_path, test_fraction=0.0).test is None


def test_pixels_and_order(tmp_path):
    expected = [_save(tmp_path / f"{index:03}.png", size=(7, 6)) for index in range(150)]
    dataset = _load(tmp_path, test_fraction=0.0)
    np.testing.assert_array_equal(dataset.train.examples, expected)
    assert dataset.train.labels is None and dataset.test is None and dataset.classes == ()
    assert len(_load(tmp_path, test_fraction=0.1).test.examples) == 15


def test_large_files_are_decoded_by_threads_in_order(tmp_path):
    for index in range(130):
        _save(tmp_path / f"{index:03}.bmp", size=(160, 140), value=index)
    images = _load(tmp_path, test_fraction=0.0, image_size=4).train.examples
    np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(130))


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_split_folders(tmp_path, test_name):
    _classes(tmp_path / "train", ("a", "b", "c"), 2)
    _classes(tmp_path / test_name, ("c", "a"), 1)
    dataset = _load(tmp_path)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.test.labels.tolist() == [0, 2]


def test_train_alone_is_split_and_train_among_others_is_a_class(tmp_path):
    _classes(tmp_path / "one" / "train", count=5)
    assert len(_load(tmp_path / "one").test.examples) == 2
    _classes(tmp_path / "vehicles", ("bus", "train"))
    assert _load(tmp_path / "vehicles").classes == ("bus", "train")


def test_resize_and_crop(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 200  # the center square
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    images = _load(tmp_path, image_size=10, test_fraction=0.0).train.examples
    assert images.shape == (2, 10, 10, 3)
    np.testing.assert_array_equal(images[:, 2:-2, 2:-2], 200)
    _save(tmp_path / "small.jpg", size=(5, 7), value=90)
    large = _load(tmp_path, image_size=33, test_fraction=0.0).train.examples
    assert large.shape == (3, 33, 33, 3)


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("L", 1), ("1", 1)]
)
def test_kinds_of_pixels(tmp_path, mode, channels):
    _save(tmp_path / "a.tif", mode=mode)
    assert _load(tmp_path, test_fraction=0.0).train.examples.shape == (1, 8, 8, channels)
    assert _load(tmp_path, test_fraction=0.0, channels="gray").train.examples.shape[-1] == 1
    assert _load(tmp_path, test_fraction=0.0, channels="rgb").train.examples.shape[-1] == 3


def test_sixteen_bits_become_eight(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    images = _load(tmp_path, test_fraction=0.0).train.examples
    assert images.ravel().tolist() == [0, 1, 128, 255]


def test_floats_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="a.tif' has pixels of mode 'F'"):
        _load(tmp_path, test_fraction=0.0)


def test_mixed_channels(tmp_path):
    _save(tmp_path / "color.png")
    _save(tmp_path / "gray.png", mode="L")
    with pytest.raises(UserError, match="gray.png' is grayscale and .*color.png' is RGB. Set --d"):
        _load(tmp_path, test_fraction=0.0)
    assert _load(tmp_path, test_fraction=0.0, channels="rgb").train.examples.shape == (2, 8, 8, 3)


def test_mixed_sizes(tmp_path):
    _save(tmp_path / "a.png", size=(8, 8))
    _save(tmp_path / "b.png", size=(9, 7))
    with pytest.raises(UserError, match="a.png' is 8x8 and .*b.png' is 7x9 .*--data.image-size"):
        _load(tmp_path, test_fraction=0.0)
    assert _load(tmp_path, test_fraction=0.0, image_size=8).train.examples.shape == (2, 8, 8, 3)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_corrupt_files(tmp_path, damage):
    _classes(tmp_path, count=5, size=(40, 40))
    bad = tmp_path / "cat" / "2.png"
    content = bad.read_bytes()
    half = content[: len(content) // 2]
    bad.write_bytes({"truncated": half, "empty": b"", "text": b"hi"}[damage])
    with pytest.raises(UserError, match="cat.2.png' .*--data.skip-corrupt"):
        _load(tmp_path, test_fraction=0.0)
    dataset = _load(tmp_path, test_fraction=0.0, skip_corrupt=True)
    assert dataset.skipped == (str(bad),)
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 5
    bad.unlink()
    whole = _load(tmp_path, test_fraction=0.0)
    np.testing.assert_array_equal(dataset.train.examples, whole.train.examples)


def test_loose_files_beside_classes(tmp_path):
    _classes(tmp_path)
    (tmp_path / "README.txt").write_text("x")
    with pytest.raises(UserError, match="README.txt' cannot be read as an image"):
        _load(tmp_path)
    assert _load(tmp_path, skip_corrupt=True).skipped == (str(tmp_path / "README.txt"),)
    _save(tmp_path / "stray.png")
    with pytest.raises(UserError, match="holds both images .'stray.png'. and folders .'cat'."):
        _load(tmp_path)


def test_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="nowhere' does not exist; give a folder"):
        _load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is empty; put images"):
        _load(tmp_path)
    _classes(tmp_path)
    (tmp_path / "cow").mkdir()
    with pytest.raises(UserError, match="Class folder .*cow' has no files"):
        _load(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("x")
    with pytest.raises(UserError, match="has no file that can be read as an image"):
        _load(tmp_path / "bad", skip_corrupt=True, test_fraction=0.0)


def test_splits_that_do_not_agree(tmp_path):
    _classes(tmp_path / "train", ("a", "b"))
    _classes(tmp_path / "test", ("a", "zebra"))
    with pytest.raises(UserError, match="Class 'zebra' is in .*test' but not in .*train'.* a, b"):
        _load(tmp_path)
    _classes(tmp_path / "flat" / "train", ("a", "b"))
    _save(tmp_path / "flat" / "val" / "0.png")
    with pytest.raises(UserError, match="train' has a folder per class and .*val' has none"):
        _load(tmp_path / "flat")


def test_memory_is_checked_and_both_remedies_work(tmp_path):
    _classes(tmp_path, count=20, size=(100, 100))
    with pytest.raises(UserError, match="40 images of 100x100x3 take 0.00 GiB") as caught:
        _load(tmp_path, memory_limit=0.001, streaming="never")
    message = str(caught.value)
    size = int(message.split("--data.image-size ")[1].split()[0])
    assert (
        _load(
            tmp_path, memory_limit=0.001, streaming="never", image_size=size
        ).train.examples.shape[1]
        == size
    )
    with pytest.raises(UserError, match="memory_limit"):
        _load(tmp_path, memory_limit=0.001, streaming="never", image_size=size + 1)
    limit = float(message.split("--data.memory-limit ")[1].split()[0])
    _load(tmp_path, memory_limit=limit, streaming="never")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "TEST"),
        ("training", "testing"),
        *(("train", name) for name in ("val", "Valid", "validation", "dev", "eval", "holdout")),
    ],
)
@pytest.mark.parametrize("classes", [True, False])
def test_splits_by_name(tmp_path, train, test, classes):
    for split, count in ((train, 3), (test, 1)):
        if classes:
            _classes(tmp_path / split, count=count)
        else:
            _classes(tmp_path, (split,), count=count)
    dataset = _load(tmp_path)
    assert dataset.classes == (("cat", "dog") if classes else ())
    assert (len(dataset.train.examples), len(dataset.test.examples)) == ((6, 2), (3, 1))[
        not classes
    ]
    assert dataset.notes == (f"Training on '{tmp_path / train}', testing on '{tmp_path / test}'.",)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("cat", "dog", "test"), r"look like splits \(test\), but not one for training and one"),
        (("Val",), r"look like splits \(Val\)"),
        (("train", "Train", "test"), r"look like splits \((Train, train|train, Train), test\)"),
        (("train/cat", "rest/cat"), r"look like splits \(train\)"),
        (
            ("all/train/cat", "all/test/cat"),
            r"Class folder '.*all' holds folders that look",
        ),
        (
            ("cat/train", "cat/val", "dog/x"),
            r"cat' holds folders that look like splits \(train, val",
        ),
    ],
)
def test_folders_that_look_like_splits_are_no_classes(tmp_path, folders, message):
    for folder in folders:
        _save(tmp_path / folder / "0.png")
    with pytest.raises(UserError, match=message):
        _load(tmp_path)


def test_splits_are_chosen_and_the_others_named(tmp_path):
    for index, name in enumerate(("train", "test", "val", "extra")):
        _classes(tmp_path / name, count=1 + index)
    dataset = _load(tmp_path)
    assert len(dataset.test.examples) == 4
    assert dataset.notes[0].endswith("/test'; not read is what lies beside: extra, val.")
    dataset = _load(tmp_path, train_split="extra", test_split="val")
    assert (len(dataset.train.examples), len(dataset.test.examples)) == (8, 6)
    with pytest.raises(UserError, match="/nowhere' does not exist; give a folder"):
        _load(tmp_path, train_split="nowhere")
    (tmp_path / "train").rename(tmp_path / "first")
    with pytest.raises(UserError, match="has no folder train; set --data.train-split too"):
        _load(tmp_path, test_split="val")


def test_labels_can_be_left_out(tmp_path):
    _classes(tmp_path / "train")
    _save(tmp_path / "val" / "0.png")
    for streaming in ("never", "always"):
        dataset = _load(tmp_path, labels="none", streaming=streaming)
        assert not dataset.train.labeled and not dataset.test.labeled and dataset.classes == ()
        assert (dataset.train.size, dataset.test.size) == (10, 1)
