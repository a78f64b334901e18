"""Tar shards written by webdataset: as the same images in a folder, and what can be wrong."""

import gzip
import io
import json
import pickle
import tarfile

import numpy as np
import pytest
import webdataset
from PIL import Image
from same_as_folder import check_same, images, write_folder

from jaxclr.data import Data, identity, load, tar_index, wds
from jaxclr.errors import UserError
from jaxclr.paths import expanded


def png(value=0, size=6):
    stream = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write(path, samples):
    """Writes a shard; samples are dicts of bytes by extension, keys are numbers by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as writer:
        for index, sample in enumerate(samples):
            writer.write({"__key__": f"{index:03}", **sample})


def numbered(count=6, start=0, **fields):
    return [{"png": png(start + row), **fields} for row in range(count)]


def read(source, **fields):
    return load(Data(f"wds:{source}", **{"test_fraction": 0.0, **fields}))


def values(split):
    return split.examples[:, 0, 0, 0].tolist()


WORKER = pytest.param(True, 1, marks=pytest.mark.full)


@pytest.mark.parametrize("split, workers", [(True, 0), (False, 0), WORKER])
def test_the_same_as_a_folder(tmp_path, split, workers):
    """In shards of five, with the class as the text of cls."""
    parts = {"train": images(), "val": images(18)} if split else {"": images()}
    for name, files in parts.items():
        write_folder(tmp_path / "folder" / name, files)
        samples = [
            {"__key__": file[:3], file[4:]: content, "cls": label.encode()}
            for label, file, content in files
        ]
        for start in range(0, len(samples), 5):
            shard = f"{name or 'all'}-{start // 5:06}.tar"
            write(tmp_path / "shards" / shard, samples[start : start + 5])
    check_same(f"folder:{tmp_path}/folder", f"wds:{tmp_path}/shards", workers)


def test_the_index_is_made_once_and_again_for_a_shard_that_changed(tmp_path, monkeypatch):
    for shard in range(3):
        write(tmp_path / f"{shard}.tar", numbered(2, 2 * shard, cls=b"0"))
    seen = []
    original = wds.tar_index
    monkeypatch.setattr(
        wds,
        "tar_index",
        lambda path, labels: seen.append(path.rpartition("/")[2]) or original(path, labels),
    )
    before = identity.identity(read(tmp_path), Data(f"wds:{tmp_path}"))
    assert sorted(seen) == ["0.tar", "1.tar", "2.tar"]
    write(tmp_path / "1.tar", numbered(3, 50, cls=b"0"))
    dataset = read(tmp_path)
    assert seen[3:] == ["1.tar"] and values(dataset.train) == [0, 1, 50, 51, 52, 4, 5]
    now = identity.identity(dataset, Data(f"wds:{tmp_path}"))
    assert "changed: version" in identity.changes(before, now)
    write(tmp_path / "1.tar", [{"png": png(50, size=40), "cls": b"0"} for _ in range(3)])
    assert read(tmp_path, streaming="always").version != dataset.version  # of other sizes


LABELS = {
    "integers": (lambda row: {"cls": b"%d" % (row * 10)}, {}, ("0", "10", "20"), [0, 1, 2]),
    "names": (lambda row: {"cls": b"cab"[row : row + 1]}, {}, ("a", "b", "c"), [2, 0, 1]),
    "missing": (lambda row: {"cls": b"%d" % row} if row else {}, {}, ("1", "2"), [-1, 0, 1]),
    "minus": (lambda row: {"cls": b"%d" % (row - 1)}, {}, ("0", "1"), [-1, 0, 1]),
    "json": (lambda row: {"json": b'{"label": %d}' % row}, {}, ("0", "1", "2"), [0, 1, 2]),
    "number": (lambda row: {"json": b"%d" % row}, {}, ("0", "1", "2"), [0, 1, 2]),
    "key": (
        lambda row: {"json": json.dumps({"kind": "xy"[row % 2]}).encode(), "cls": b"5"},
        {"labels": "kind"},
        ("x", "y"),
        [0, 1, 0],
    ),
    "extension": (lambda row: {"cls2": b"7", "cls": b"1"}, {"labels": "cls2"}, ("7",), [0] * 3),
    "none": (lambda row: {"cls": b"1"}, {"labels": "none"}, (), None),
    "captions": (lambda row: {"txt": b"a cat"}, {}, (), None),
}


@pytest.mark.parametrize("streaming", ["never", "always"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels(tmp_path, kind, streaming):
    make, fields, classes, labels = LABELS[kind]
    write(tmp_path / "x.tar", [{"png": png(row), **make(row)} for row in range(3)])
    dataset = read(tmp_path / "x.tar", streaming=streaming, **fields)
    assert dataset.classes == classes and dataset.train.labeled == (labels is not None)
    if streaming == "always":
        (rows,) = dataset.train.plain(6, batch=9)
        assert rows.labels.tolist() == (labels or [-1] * 3)
        assert rows.names[1] == f"{tmp_path}/x.tar 001.png"
    elif labels is not None:
        assert dataset.train.labels.tolist() == labels
    assert any("labels are in cls or json" in note for note in dataset.notes) == (
        kind == "captions"
    )


def test_patterns_and_splits(tmp_path):
    for place, value in (("x-08", 8), ("x-09", 9), ("x-10", 10), ("y-08", 80)):
        write(tmp_path / "some" / f"{place}.tar", numbered(1, value))
    some = tmp_path / "some"
    assert values(read(some / "x-{08..10}.tar").train) == [8, 9, 10]
    assert values(read(some / "{y,x}-08.tar").train) == [80, 8]
    assert values(read(some / "x-*.tar").train) == [8, 9, 10]
    assert values(read(some).train) == [8, 9, 10, 80]
    dataset = read(some, train_split="x-0*.tar", test_split="y-08.tar")
    assert values(dataset.train) == [8, 9] and values(dataset.test) == [80]
    assert dataset.notes[0] == (
        "Training on 2 shard(s) (x-08.tar, x-09.tar), testing on 1 shard(s) (y-08.tar); "
        "not read: 1 shard(s) (x-10.tar)."
    )
    assert values(read(some / "x-{08..10}.tar", test_split="y-08.tar").test) == [80]
    assert values(read(some, test_split="y-08.tar").train) == [8, 9, 10]
    for split, value in (("train", 1), ("val", 2), ("test", 3)):
        label = {} if split == "test" else {"cls": b"0"}
        write(tmp_path / "splits" / split / "000.tar", numbered(1, value, **label))
    dataset = read(tmp_path / "splits")  # the labels of test are withheld
    assert values(dataset.train) == [1] and values(dataset.test) == [2]
    assert values(read(tmp_path / "splits", train_split="val", labels="none").test) == [3]
    assert values(read(tmp_path / "splits" / "val").train) == [2]
    for source, fields, message in (
        (some / "x-{08..11}.tar", {}, "x-11.tar' does not exist"),
        (some / "z-*.tar", {}, "No file matches"),
        (tmp_path, {"train_split": "nowhere"}, "nowhere' does not exist"),
        (tmp_path / "splits" / "{val,test}/*.tar", {}, "look like splits .*none for training"),
        (tmp_path / "splits", {"labels": "kind"}, "has no label 'kind': .* members .cls, png"),
    ):
        with pytest.raises(UserError, match=message):
            read(source, **fields)


def test_damaged_images(tmp_path):
    samples = numbered(4, cls=b"0")
    samples[2]["png"] = samples[2]["png"][:50]
    write(tmp_path / "x.tar", [*samples, {"cls": b"0"}])
    with pytest.raises(UserError, match="x.tar 004' has no image.*--data.skip-corrupt"):
        read(tmp_path)
    dataset = read(tmp_path, skip_corrupt=True)
    assert dataset.skipped == (f"{tmp_path}/x.tar 004", f"{tmp_path}/x.tar 002.png")
    assert values(dataset.train) == [0, 1, 3]
    (rows,) = read(tmp_path, skip_corrupt=True, streaming="always").train.plain(6, batch=9)
    assert rows.indices.tolist() == [0, 1, 3, 3]
    write(tmp_path / "x.tar", samples)
    with pytest.raises(UserError, match="x.tar 002.png' is damaged"):
        read(tmp_path)
    write(tmp_path / "x.tar", [{"cls": b"0"}, *({"png": png(), "cls": b"%d" % n} for n in (1, 0))])
    assert read(tmp_path, skip_corrupt=True).train.labels.tolist() == [1, 0]


def test_damaged_shards(tmp_path):
    path = tmp_path / "x.tar"
    write(path, numbered(4, cls=b"0"))
    content = path.read_bytes()
    for damaged in (content[:2000], b"", b"not a tar file" * 99, gzip.compress(content)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="x.tar' cannot be read as an uncompressed tar file"):
            read(tmp_path)
    for sample, message in (
        ({"png": png(), "jpg": png()}, r"Sample '000' of .*x.tar' has several images \(jpg, png\)"),
        ({"png": png(), "cls": b"\xff"}, "'000.cls' of .*x.tar' cannot be read as a label"),
        ({"png": png(), "json": b"{"}, "'000.json' of .*x.tar' cannot be read as a label"),
        ({"png": png(), "cls": b"x" * 201}, "'000.cls' .* cannot be read as a label .* 200 bytes"),
    ):
        write(path, [sample])
        with pytest.raises(UserError, match=message):
            read(tmp_path)
    path.rename(tmp_path / "x.tar.gz")
    with pytest.raises(UserError, match="has no tar files .*not compressed"):
        read(tmp_path)


def test_other_members_are_ignored(tmp_path):
    """Of several images the one without a second extension; folders, metadata and README not."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        folder = tarfile.TarInfo("a.b")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        long = "n" * 150
        for name, content in (
            ("__meta__/000.png", png(9)),
            ("README", b"text"),
            ("a.b/000.png", png(1)),
            ("a.b/000.seg.png", png(8)),
            ("a.b/000.png", png(3)),  # another sample of the same name
            (f"a.b/{long}.PNG", png(2)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    dataset = read(tmp_path / "x.tar")
    assert values(dataset.train) == [1, 3, 2]
    assert dataset.train.names[2] == f"{tmp_path}/x.tar a.b/{long}.PNG"
    found = tar_index.tar_index(str(tmp_path / "x.tar"), "auto")
    assert found["extensions"].tolist() == [b"png", b"seg.png"]


def test_shards_in_a_bucket(tmp_path, bucket):
    """The same images, split by name, from one index there."""
    url = expanded(f"{bucket}/shards")
    for name, value in (("train-0", 1), ("train-1", 2), ("val-0", 3)):
        write(tmp_path / f"{name}.tar", numbered(2, value, cls=b"0"))
        (url / f"{name}.tar").write_bytes((tmp_path / f"{name}.tar").read_bytes())
    for source in (url, f"{url}/*.tar"):
        dataset = read(source)
        assert values(dataset.train) == [1, 2, 2, 3] and values(dataset.test) == [3, 4]
    assert (url / ".tar-index.npz").exists()
    dataset = read(f"{url}/train-{{0..1}}.tar", streaming="always", labels="none")
    (rows,) = pickle.loads(pickle.dumps(dataset.train)).plain(6, batch=9)
    assert [image[0, 0, 0] for (image,) in rows.made] == [1, 2, 2, 3]
    assert rows.names[2] == f"{url}/train-1.tar 000.png"
    with pytest.raises(UserError, match="train-3.tar' does not exist"):
        read(f"{url}/train-{{1,3}}.tar")
