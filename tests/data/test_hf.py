"""Data sets of Hugging Face on disk: as the same images in a folder, and what can be wrong."""

import io
import os
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image
from same_as_folder import CLASSES, check_same, images, write_folder

from jaxclr.data import Data, hf, load
from jaxclr.errors import UserError

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of Hugging Face."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    yield tmp_path / "cache"
    if not bars:
        datasets.enable_progress_bars()


def png(value=0, size=6):
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def table(count=3, start=0, image=datasets.Image, **columns):
    """Images of one value each; columns are pairs of a feature and values."""
    rows = {"image": [{"bytes": png(start + row), "path": None} for row in range(count)]}
    features = {"image": image()}
    for name, (feature, values) in columns.items():
        rows[name], features[name] = values, feature
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def read(source, **fields):
    return load(Data(f"hf:{source}", **{"test_fraction": 0.0, **fields}))


def values(split):
    return split.examples[:, 0, 0, 0].tolist()


WORKER = pytest.param("parquet", 1, marks=pytest.mark.full)


@pytest.mark.parametrize("form, workers", [("arrow", 0), ("parquet", 0), WORKER])
def test_the_same_as_a_folder(tmp_path, form, workers):
    """Saved by save_to_disk with paths, split by this library; and Parquet of two splits."""
    parts = {"train": images(), "test": images(18)} if form == "parquet" else {"": images()}
    out = tmp_path / form
    for name, files in parts.items():
        folder = tmp_path / "folder" / name
        write_folder(folder, files)
        place = lambda file, folder=folder: (
            {"bytes": file[2], "path": file[1]}
            if form == "parquet"
            else {"bytes": None, "path": str(folder / file[0] / file[1])}
        )
        rows = {"picture": list(map(place, files)), "kind": [file[0] for file in files]}
        features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(CLASSES))}
        made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        if form == "parquet":
            out.mkdir(exist_ok=True)
            for shard in range(2):
                some = made.shard(2, shard, contiguous=True)
                some.to_parquet(out / f"{name}-{shard:05}-of-00002.parquet")
        else:
            made.save_to_disk(str(out), num_shards=2)
    check_same(f"folder:{tmp_path}/folder", f"hf:{out}", workers)


LABELS = {
    "class": (datasets.ClassLabel(names=["x", "y"]), [1, -1, 0], {}, ("x", "y"), [1, -1, 0]),
    "label": (datasets.Value("int64"), [30, None, 20], {}, ("20", "30"), [1, -1, 0]),
    "labels": (datasets.Value("string"), ["b", None, "a"], {}, ("a", "b"), [1, -1, 0]),
    "digit": (datasets.Value("uint8"), [5, 5, 6], {"labels": "digit"}, ("5", "6"), [0, 0, 1]),
    "cls": (datasets.Value("int32"), [0, 1, 2], {"labels": "none"}, (), None),
    "year": (datasets.Value("int32"), [0, 1, 2], {}, (), None),
}


@pytest.mark.parametrize("streaming", ["never", "always"])
@pytest.mark.parametrize("name", LABELS)
def test_labels(tmp_path, name, streaming):
    feature, given, fields, classes, labels = LABELS[name]
    path = tmp_path / "x"
    table(**{name: (feature, given)}).save_to_disk(str(path))
    dataset = read(path, streaming=streaming, **fields)
    assert dataset.classes == classes and dataset.train.labeled == (labels is not None)
    if streaming == "always":
        (rows,) = dataset.train.plain(6, batch=9)
        assert rows.labels.tolist() == (labels or [-1] * 3)
        assert rows.names[1] == f"{path} train row 1"
    elif labels is not None:
        assert dataset.train.labels.tolist() == labels
    assert any("no column among year is" in note for note in dataset.notes) == (name == "year")


def test_splits(tmp_path):
    label = lambda *values: {"label": (datasets.ClassLabel(names=["a"]), list(values))}
    datasets.DatasetDict(
        train=table(3, 0, **label(0, 0, 0)),
        validation=table(2, 10, **label(0, 0)),
        test=table(1, 20, **label(-1)),
    ).save_to_disk(str(tmp_path / "x"))
    read_ = lambda **fields: read(tmp_path / "x", **fields)
    dataset = read_()  # the labels of test are withheld
    assert values(dataset.train) == [0, 1, 2] and values(dataset.test) == [10, 11]
    assert dataset.notes[0] == "Training on train, testing on validation."
    dataset = read_(train_split="train[1:]+test", test_split="validation[:50%]")
    assert values(dataset.train) == [1, 2, 20] and values(dataset.test) == [10]
    assert dataset.train.labels.tolist() == [0, 0, -1]
    assert values(read_(train_split="test", labels="none").test) == [10, 11]
    for split in ("train+nowhere", "train[", "train[3:]", "nowhere"):
        with pytest.raises(UserError, match="has no split '.*'; it has train, validation, test"):
            read_(train_split=split)
    with pytest.raises(UserError, match="no column 'image' of one label .*; it has label"):
        read_(labels="image")
    table(3, 0).save_to_disk(str(tmp_path / "y"))
    before = read(tmp_path / "y").version
    shutil.rmtree(tmp_path / "y")
    table(3, 0, n=(datasets.Value("int32"), [0, 1, 2])).save_to_disk(str(tmp_path / "y"))
    assert read(tmp_path / "y").version != before  # files of other sizes


def test_a_data_set_in_the_cache_by_name(tmp_path, cache):
    source = tmp_path / "source"
    source.mkdir()
    table(3).to_parquet(source / "train.parquet")
    (made,) = datasets.load_dataset(str(source)).values()
    made = os.path.dirname(made.cache_files[0]["filename"])
    target = cache / "user___thing" / "default" / "0.0.0" / HASH
    shutil.copytree(made, target)
    (target / "source-train.arrow").rename(target / "thing-train.arrow")
    assert values(read("user/thing").train) == [0, 1, 2]
    hub = tmp_path / "hub" / "datasets--user--other"
    shutil.copytree(source, hub / "snapshots" / HASH)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(HASH)
    assert read("user/other").name == "other"
    for name, of in (("user/nothing", r"'user/nothing'"), ("mnist:small", "'mnist', 'small'")):
        with pytest.raises(UserError, match=rf"nothing is downloaded.*load_dataset\({of}\)"):
            read(name)
    assert datasets.config.HF_HUB_OFFLINE is False


def test_damaged_images(tmp_path):
    rows = [png(0), png(1)[:50], None, png(3)]
    made = datasets.Dataset.from_dict(
        {"image": [row and {"bytes": row, "path": None} for row in rows]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    made.save_to_disk(str(tmp_path / "x"))
    with pytest.raises(UserError, match="x train row 1' is damaged.*; .*row 2' cannot be read"):
        read(tmp_path / "x")
    dataset = read(tmp_path / "x", skip_corrupt=True)
    assert dataset.skipped == tuple(f"{tmp_path}/x train row {row}" for row in (1, 2))
    (rows,) = read(tmp_path / "x", skip_corrupt=True, streaming="always").train.plain(6, batch=9)
    assert rows.indices.tolist() == [0, 3, 3, 3]


def test_what_holds_no_images(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(str(tmp_path / "x"))
    with pytest.raises(UserError, match="has no column of images; its columns are text"):
        read(tmp_path / "x")
    with pytest.raises(UserError, match="is in a bucket; .*read from local folders"):
        read("gs://some/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty' cannot be opened as a data set"):
        read(tmp_path / "empty")
    arrow = next((tmp_path / "x").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:20])
    with pytest.raises(UserError, match="x' cannot be opened as a data set"):
        read(tmp_path / "x")


def test_bytes_without_the_type_of_images(tmp_path):
    """As other writers of Parquet store them."""
    raw = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    table(image=lambda: raw).to_parquet(tmp_path / "a.parquet")
    assert values(read(tmp_path).train) == [0, 1, 2]
    files = datasets.Dataset.from_dict(
        {"image": [{"bytes": None, "path": "7.bin"}]}, features=datasets.Features({"image": raw})
    )
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "7.bin").write_bytes(png(7))  # beside the table
    files.to_parquet(tmp_path / "files" / "a.parquet")
    assert values(read(tmp_path / "files").train) == [7]
    made = datasets.Dataset.from_dict({"jpg": [png(4)], "n": [1]})
    made = made.cast_column("jpg", datasets.Value("binary"))
    assert hf._image_key("x", made.features) == "jpg"
