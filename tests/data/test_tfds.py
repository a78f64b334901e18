"""TFDS data sets, written here as array_record, and read without TensorFlow."""

import pickle
import sys

import numpy as np
import pytest
import tensorflow_datasets
from prepared import png, prepare

from jaxclr.data import Data, load, tfds
from jaxclr.errors import UserError


def _load(root, name="tiny_shapes", **fields):
    return load(Data(f"tfds:{name}", dir=str(root), **fields))


@pytest.mark.parametrize("where", [".", "tiny_shapes/1.0.0"])
@pytest.mark.parametrize("name", ["tiny_shapes", "tiny_shapes:1.0.0"])
def test_reads_a_folder_without_a_registered_builder(tmp_path, where, name):
    images = prepare(tmp_path)
    dataset = _load(tmp_path / where, name)
    np.testing.assert_array_equal(dataset.train.examples, images["train"])
    np.testing.assert_array_equal(dataset.test.examples, images["test"])
    assert dataset.train.labels.tolist() == [0, 1, 2] * 4 and dataset.train.labels.dtype == np.int32
    assert dataset.classes == ("circle", "square", "star") and dataset.name == "tiny_shapes"
    assert "tensorflow" not in sys.modules


def test_reads_another_version_of_a_registered_data_set(tmp_path):
    prepare(tmp_path, "mnist", shape=(6, 6, 1))
    assert _load(tmp_path, "mnist").train.examples.shape == (12, 6, 6, 1)
    assert _load(tmp_path, "mnist", channels="rgb").train.examples.shape == (12, 6, 6, 3)


def test_validation_instead_of_a_test_split_without_labels(tmp_path):
    splits = (("train", 6), ("validation", 5))
    prepare(tmp_path, "one", splits)
    assert len(_load(tmp_path, "one").test.examples) == 5
    prepare(tmp_path, "two", (*splits, ("test", 4)))
    assert len(_load(tmp_path, "two").test.examples) == 4
    prepare(tmp_path, "three", (("train", 6), ("test", 4)), label=-1)
    assert len(_load(tmp_path, "three", test_fraction=0.5).train.examples) == 3


def test_train_alone_is_split(tmp_path):
    prepare(tmp_path, splits=(("train", 12),))
    dataset = _load(tmp_path, test_fraction=0.25)
    assert sorted(dataset.test.labels.tolist()) == [0, 1, 2] and len(dataset.train.examples) == 9
    assert _load(tmp_path, test_fraction=0.0).test is None


def test_without_labels(tmp_path):
    prepare(tmp_path, labeled=False)
    dataset = _load(tmp_path)
    assert dataset.train.labels is None and dataset.test.labels is None and dataset.classes == ()


def test_images_of_many_sizes(tmp_path):
    prepare(tmp_path, shape=(None, None, 3))
    with pytest.raises(UserError, match="tiny_shapes/1.0.0 train record 1' is 6x6.*image-size"):
        _load(tmp_path)
    assert _load(tmp_path, image_size=4).train.examples.shape == (12, 4, 4, 3)


def test_unknown_name(tmp_path):
    with pytest.raises(UserError, match="no TFDS data set named 'cifar1O'.* Did you mean 'cifar10"):
        _load(tmp_path, "cifar1O")
    with pytest.raises(UserError, match="no TFDS data set named 'CIFAR10'.* Did you mean 'cifar10"):
        _load(tmp_path, "CIFAR10")
    with pytest.raises(UserError, match="There is no folder .*nowhere'. Set --data.dir"):
        _load(tmp_path / "nowhere", "cifar10")
    with pytest.raises(UserError, match="cannot open 'cifar10:9.9.9': .*9.9.9, only: 3.0.2"):
        _load(tmp_path, "cifar10:9.9.9")


def test_not_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="'cifar10' is not prepared in") as caught:
        _load(tmp_path, "cifar10")
    assert "pip install 'jaxclr[prepare]'" in str(caught.value)
    command = f"tfds.builder('cifar10', data_dir={str(tmp_path)!r}, file_format='array_record')"
    assert command in str(caught.value)


@pytest.mark.parametrize("succeeds", [True, False])
def test_prepares_where_tensorflow_is_installed(tmp_path, monkeypatch, succeeds):
    monkeypatch.setattr(tfds.importlib.util, "find_spec", lambda name: object())

    def download_and_prepare(builder):
        if not succeeds:
            raise OSError("no network")
        prepare(tmp_path, "cifar10", version="3.0.2")
        builder.info.read_from_directory(tmp_path / "cifar10" / "3.0.2")

    cifar10 = tensorflow_datasets.core.registered.imported_builder_cls("cifar10")
    monkeypatch.setattr(cifar10, "download_and_prepare", download_and_prepare)
    if succeeds:
        assert len(_load(tmp_path, "cifar10").train.examples) == 12
    else:
        with pytest.raises(UserError, match="'cifar10' cannot be prepared in .*: no network"):
            _load(tmp_path, "cifar10")


def test_another_format(tmp_path):
    prepare(tmp_path, file_format="riegeli")
    with pytest.raises(UserError, match="as riegeli; array_record or tfrecord is needed"):
        _load(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "missing"])
def test_damaged_files(tmp_path, damage):
    prepare(tmp_path, shards=4)
    path = tmp_path / "tiny_shapes" / "1.0.0" / "tiny_shapes-train.array_record-00002-of-00004"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        middle = len(content) // 3
        path.write_bytes(content[:100] + bytes(middle) + content[100 + middle :])
    with pytest.raises(
        UserError, match="train cannot be read from .*tiny_shapes-train.array_record-00002.*prepare"
    ):
        _load(tmp_path)


def test_damaged_description(tmp_path):
    prepare(tmp_path)
    (tmp_path / "tiny_shapes" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="TFDS cannot open 'tiny_shapes'"):
        _load(tmp_path)


def test_damaged_images(tmp_path):
    broken = iter([True, *[False] * 99])
    prepare(tmp_path, encode=lambda pixels: png(pixels)[: 60 if next(broken) else None])
    with pytest.raises(UserError, match="tiny_shapes/1.0.0 train record 0' is damaged"):
        _load(tmp_path)
    dataset = _load(tmp_path, skip_corrupt=True)
    assert dataset.skipped == ("tiny_shapes/1.0.0 train record 0",)
    assert dataset.train.labels.tolist() == ([0, 1, 2] * 4)[1:]


def test_what_holds_no_bytes_of_images(tmp_path):
    prepare(tmp_path, "words", image=False)
    with pytest.raises(UserError, match="'tfds:words' has no images; its features are"):
        _load(tmp_path, "words")
    prepare(tmp_path, "deep", shape=(4, 4, 1), dtype="uint16")
    with pytest.raises(UserError, match="images of .*uint16.*; only uint8 is read"):
        _load(tmp_path, "deep")
    prepare(tmp_path, "rest", splits=(("test", 3),))
    with pytest.raises(UserError, match="has no split 'train'; it has test"):
        _load(tmp_path, "rest")


def test_memory_is_checked(tmp_path):
    prepare(tmp_path, shape=(64, 64, 3), splits=(("train", 80), ("test", 10)))
    with pytest.raises(UserError, match="90 images of 64x64x3") as caught:
        _load(tmp_path, memory_limit=0.001, streaming="never")
    size = int(str(caught.value).split("--data.image-size ")[1].split()[0])
    assert (
        _load(
            tmp_path, memory_limit=0.001, streaming="never", image_size=size
        ).train.examples.shape[1]
        == size
    )


@pytest.mark.parametrize("splits", [(("train", 12), ("test", 4)), (("train", 16),)])
def test_streams_read_what_memory_holds(tmp_path, splits):
    """Images that are not resized are equal; a missing test split is drawn by index."""
    prepare(tmp_path, shape=(6, 6, 3), splits=splits)
    resident = _load(tmp_path, test_fraction=0.25)
    dataset = pickle.loads(pickle.dumps(_load(tmp_path, test_fraction=0.25, streaming="always")))
    assert dataset.classes == resident.classes and dataset.train.why == "data.streaming is always"
    splits = (resident.train, resident.test)
    everything = {
        x.tobytes(): label
        for split in splits
        for x, label in zip(split.examples, split.labels, strict=True)
    }
    for split, size in ((dataset.train, 12), (dataset.test, 4)):
        (rows,) = split.plain(6, batch=100)
        assert split.size == size and split.labeled
        assert rows.labels.tolist() == [everything.pop(image.tobytes()) for (image,) in rows.made]


def test_splits_by_name_and_partly_labeled(tmp_path):
    splits = (("train", 12), ("unlabelled", 6), ("test", 4), ("val", 4))
    label = lambda split, row: -1 if split in ("unlabelled", "test") else row % 3
    images = prepare(tmp_path, splits=splits, label=label)
    dataset = _load(tmp_path)
    assert dataset.notes[0] == (
        "Training on tiny_shapes/1.0.0 train, testing on tiny_shapes/1.0.0 val."
    )
    for streaming in ("never", "always"):
        dataset = _load(tmp_path, train_split="train+unlabelled", streaming=streaming, image_size=6)
        assert (dataset.train.size, dataset.test.size) == (18, 4) and dataset.train.labeled
        if streaming == "always":
            (rows,) = dataset.train.plain(6, batch=100)
            assert sorted(rows.labels.tolist()) == [-1] * 6 + [0] * 4 + [1] * 4 + [2] * 4
        else:
            assert sorted(dataset.train.labels.tolist()).count(-1) == 6
            assert "6 of the 18 training examples have no label (-1)." in dataset.notes
    dataset = _load(tmp_path, train_split="train[:50%]", test_split="train[50%:]")
    found = np.concatenate([dataset.train.examples, dataset.test.examples])
    np.testing.assert_array_equal(found, images["train"])
    dataset = _load(tmp_path, train_split="unlabelled")
    assert not dataset.train.labeled and dataset.test.labeled
    dataset = _load(tmp_path, train_split="unlabelled", streaming="always")
    assert not dataset.train.labeled and dataset.test.labeled
    for name in ("train+nowhere", "train[", "nowhere"):
        with pytest.raises(UserError, match="has no split '.*'; it has "):
            _load(tmp_path, train_split=name)


def test_integers_without_names_of_classes(tmp_path):
    label = lambda split, row: (7, 2019, -1)[row % 3]
    prepare(tmp_path, kind="integer", label=label)
    for streaming in ("never", "always"):
        dataset = _load(tmp_path, streaming=streaming)
        assert dataset.classes == ("7", "2019")
        if streaming == "always":
            (rows,) = dataset.train.plain(6, batch=100)
            labels = rows.labels
        else:
            labels = dataset.train.labels
        assert labels.tolist() == [0, 1, -1] * 4
    assert _load(tmp_path, labels="none").classes == ()
    with pytest.raises(UserError, match="has no feature 'image' of one integer .*it has label"):
        _load(tmp_path, labels="image")


def test_several_labels_of_an_image_are_left_out_and_said(tmp_path):
    prepare(tmp_path, kind="several")
    dataset = _load(tmp_path)
    assert not dataset.train.labeled and dataset.classes == ()
    assert "No labels are read: no feature among label is one class" in dataset.notes[1]
    assert len(_load(tmp_path, labels="none").notes) == 1
