"""TFRecord files, written here by tensorboardX: the order of records, the index, and damage."""

import json
import os
import pickle

import numpy as np
import pytest
from prepared import prepare

from jaxclr.data import Data, load, spans, tfrecord
from jaxclr.errors import UserError


def _load(root, **fields):
    return load(Data("tfds:tiny_shapes", dir=str(root), **fields))


def _folder(root):
    return root / "tiny_shapes" / "1.0.0"


@pytest.fixture
def scans(monkeypatch):
    """The names of the files that are indexed."""
    found = []
    scan = tfrecord._scan

    def counting(path, size):
        found.append(path.rpartition("/")[2])
        return scan(path, size)

    monkeypatch.setattr(tfrecord, "_scan", counting)
    return found


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("split", ["train", "train[:5]+test", "train[3:9]+train[50%:]"])
@pytest.mark.parametrize("streaming", ["never", "always"])
def test_images_and_order_are_those_of_array_record(tmp_path, shards, split, streaming):
    found = []
    for file_format in ("tfrecord", "array_record"):
        root = tmp_path / file_format
        prepare(root, file_format=file_format, shards=shards, shape=(6, 6, 3))
        train = _load(root, train_split=split, test_split="test", streaming=streaming).train
        if streaming == "always":
            train = pickle.loads(pickle.dumps(train))
            (rows,) = train.plain(6, batch=100)
            backwards = train.stored.read(range(train.size - 1, -1, -1))
            assert [label for _, label in backwards] == rows.labels.tolist()[::-1]
            found.append((np.stack([image for (image,) in rows.made]), rows.labels))
        else:
            found.append((train.examples, train.labels))
    np.testing.assert_array_equal(*(images for images, _ in found))
    np.testing.assert_array_equal(*(labels for _, labels in found))


def test_array_record_is_preferred(tmp_path):
    prepare(tmp_path, file_format="array_record")
    assert len(_load(tmp_path).notes) == 1
    prepare(tmp_path, file_format="tfrecord")
    place = _folder(tmp_path) / "dataset_info.json"
    info = json.loads(place.read_text())
    place.write_text(json.dumps(info | {"alternativeFileFormats": ["array_record"]}))
    dataset = _load(tmp_path, streaming="always")
    assert dataset.notes[1] == "Prepared as array_record and tfrecord; array_record is read."
    assert "array_record" in dataset.train.stored.paths[0]


@pytest.mark.parametrize("block", [16, 2**14])
def test_the_index_is_made_once_for_each_file(tmp_path, scans, block, monkeypatch):
    monkeypatch.setattr(tfrecord, "LOCAL_BLOCK", block)
    prepare(tmp_path, file_format="tfrecord", shards=4)
    images = _load(tmp_path, train_split="train[:3]", test_split="test[:1]").train.examples
    first = [
        "tiny_shapes-test.tfrecord-00000-of-00004",
        "tiny_shapes-train.tfrecord-00000-of-00004",
    ]
    assert sorted(scans) == first
    np.testing.assert_array_equal(_load(tmp_path).train.examples[:3], images)
    assert len(scans) == len(set(scans)) == 8
    _load(tmp_path)
    assert len(scans) == 8
    (_folder(tmp_path) / first[1]).touch()
    _load(tmp_path)
    assert scans[8:] == first[1:]
    (_folder(tmp_path) / ".tfrecord-index.npz").write_bytes(b"damaged")
    np.testing.assert_array_equal(_load(tmp_path).train.examples[:3], images)
    assert len(scans) == 17


def test_the_index_of_a_folder_that_cannot_be_written_is_in_the_cache(tmp_path, scans, monkeypatch):
    monkeypatch.setenv("JAXCLR_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path, file_format="tfrecord")
    (_folder(tmp_path) / ".tfrecord-index.npz").mkdir()
    for _ in range(2):
        _load(tmp_path)
    assert len(scans) == 2
    assert len(list((tmp_path / "cache" / "tfrecord").iterdir())) == 1


def test_spans_that_are_close_together_are_read_at_once(tmp_path, monkeypatch):
    """In any order, one in another, and past the end of the file."""
    content = bytes(range(200))
    for name in "ab":
        (tmp_path / name).write_bytes(content)
    given = [("a", 20, 80), ("b", 120, 125), ("a", 0, 10), ("a", 25, 30), ("a", 85, 120)]
    some = [spans.Span(str(tmp_path / name), *ends) for name, *ends in [*given, ("a", 190, 300)]]
    asked, read = [], spans._read
    monkeypatch.setattr(spans, "_read", lambda some: asked.append(some) or read(some))
    monkeypatch.setattr(spans, "GAP", 10)
    monkeypatch.setattr(spans, "MOST", 100)
    batch = spans.Batch(some)
    for _ in range(2):
        found = [batch.open(index).read() for index in range(len(some))]
        assert found == [content[start:end] for _, start, end in some]
    assert [span[1:] for span in asked[0]] == [(0, 80), (85, 120), (190, 300), (120, 125)]
    assert len(asked) == 1 + len(some)


@pytest.mark.parametrize("streaming", ["never", "always"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("data", "has a wrong checksum in record 1, at byte {1}"),
        ("length", "has a wrong checksum in record 1, at byte {1}"),
        ("length, not indexed", "has a wrong checksum in record 1, at byte {1}"),
        ("cut", "is truncated in record 2, at byte {2}"),
        ("cut header", "is truncated in record 2, at byte {2}"),
        ("record lost", "has 2 records, and dataset_info.json lists 3"),
        ("missing", r"cannot be read \(No such file or directory\)"),
    ],
)
def test_damage_is_named(tmp_path, damage, said, streaming):
    """The index was made before the damage, except in one case, and times stay."""
    prepare(tmp_path, file_format="tfrecord", shards=4)
    path = _folder(tmp_path) / "tiny_shapes-train.tfrecord-00002-of-00004"
    offsets = tfrecord.index([str(path)])[str(path)].tolist()
    content, cuts = bytearray(path.read_bytes()), {"cut": 40, "cut header": 5, "record lost": 0}
    content[offsets[1] + (3 if "length" in damage else 30)] ^= 4
    if "not indexed" in damage:
        (_folder(tmp_path) / ".tfrecord-index.npz").unlink()
    if damage in cuts:
        content = path.read_bytes()[: offsets[2] + cuts[damage]]
    if damage == "missing":
        path.unlink()
    else:
        time = path.stat().st_mtime_ns
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
    message = f"00002-of-00004' {said.format(*offsets)}. Delete the folder and prepare"
    with pytest.raises(UserError, match=message):
        _read_all(tmp_path, streaming)


def _read_all(root, streaming):
    train = _load(root, streaming=streaming).train
    if streaming == "always":
        list(train.plain(6, batch=5))
