"""Data in buckets, on servers of this machine: as the same files on a disk."""

import dataclasses
import itertools
import pickle
import re

import numpy as np
import pytest
from PIL import Image
from prepared import prepare

from jaxclr.data import Data, absolute, buckets, load, tfrecord
from jaxclr.data.crops import Crop
from jaxclr.data.identity import changes, identity
from jaxclr.data.pieces import Pieces
from jaxclr.errors import UserError

RNG = np.random.default_rng(0)


def _upload(folder, url):
    files = (path for path in folder.rglob("*") if path.is_file())
    content = {f"{url}/{path.relative_to(folder)}": path.read_bytes() for path in files}
    buckets.file_system(url).pipe(content)


def _images(folder, count=3, classes=("train/cat", "train/dog/deep", "train/dog", "val/cat")):
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = RNG.integers(0, 256, (12, 10, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index} #%?é.png")


def _same(one, other):
    assert (one.classes, one.skipped) == (other.classes, other.skipped)
    for mine, its in ((one.train, other.train), (one.test, other.test)):
        assert mine.size == its.size and mine.channels == its.channels
        found = [_pixels(split) for split in (mine, its)]
        np.testing.assert_array_equal(*(pixels for pixels, _ in found))
        np.testing.assert_array_equal(*(labels for _, labels in found))


def _pixels(split):
    if hasattr(split, "examples"):
        return split.examples, split.labels
    rows = list(pickle.loads(pickle.dumps(split)).plain(8, batch=4))
    images = [image for part in rows for (image,) in part.made]
    return np.stack(images), np.concatenate([part.labels for part in rows])


@pytest.mark.parametrize("streaming", ["never", "always"])
def test_folders(tmp_path, bucket, streaming):
    """Every folder is listed once; runs and hidden files are left out, as on a disk."""
    _images(tmp_path)
    for name in ("run/config.json", "run/checkpoints/1/x", "train/.hidden/0.png", "train/cat/.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    _upload(tmp_path, bucket)
    local, remote = (
        load(Data(f"folder:{place}", streaming=streaming)) for place in (tmp_path, f"{bucket}/")
    )
    _same(local, remote)
    assert remote.train.size == 9 and remote.classes == ("cat", "dog")
    shown = lambda notes, place: [note.replace(str(place), "PLACE") for note in notes]
    assert shown(local.notes, tmp_path) == shown(remote.notes, bucket)


def test_folders_are_listed_once(tmp_path, gs, bucket, monkeypatch):
    _images(tmp_path)
    _upload(tmp_path, bucket)
    listed, entries = [], buckets.entries
    monkeypatch.setattr(buckets, "entries", lambda url: listed.append(url) or entries(url))
    dataset = load(Data(f"folder:{bucket}"))
    identity(dataset, Data(f"folder:{bucket}"))
    below = {url.removeprefix(bucket) for url in listed}
    deeper = {"/train/cat", "/train/dog", "/train/dog/deep", "/val/cat"}
    assert below == {"", "/train", "/val"} | deeper
    assert [listed.count(url) for url in listed if url != bucket] == [1] * 6


def test_damaged_and_changed_files(tmp_path, bucket):
    _images(tmp_path)
    _upload(tmp_path, bucket)
    data = Data(f"folder:{bucket}")
    before = identity(load(data), data)
    assert len(before.parts) == 12 and "train/dog/deep/0 #%?é.png" in before.parts
    assert changes(before, identity(load(data), data)) == []
    client, name = buckets.file_system(bucket), "train/cat/1 #%?é.png"
    content = (tmp_path / name).read_bytes()
    client.pipe_file(f"{bucket}/{name}", content[:-9] + b"x" + content[-8:])
    assert changes(before, identity(load(data), data)) == [f"changed: {name}"]
    client.pipe_file(f"{bucket}/{name}", content[:60])
    with pytest.raises(UserError, match="train/cat/1 #%.é.png' is damaged .*--data.skip-corrupt"):
        load(data)
    stream = load(dataclasses.replace(data, streaming="always", skip_corrupt=True)).train
    client.rm(f"{bucket}/train/cat/0 #%?é.png")
    (rows,) = stream.plain(8, batch=100)
    assert rows.indices.tolist() == [2, 2, 2, *range(3, 9)]
    stream = dataclasses.replace(stream, data=data)
    with pytest.raises(UserError, match="cat/0 .*' cannot be read .no such file.. Remove or rep"):
        list(stream.plain(8, batch=100))


@pytest.mark.parametrize("part", [2**25, 1000])
def test_arrays(tmp_path, bucket, part, monkeypatch):
    monkeypatch.setattr(buckets, "PART", part)
    images, labels = RNG.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    _upload(tmp_path, bucket)
    _same(*(load(Data(f"npz:{place}/a.npz")) for place in (tmp_path, bucket)))
    with pytest.raises(UserError, match=r"a.npz' has .* GiB, and is read into memory"):
        load(Data(f"npz:{bucket}/a.npz", memory_limit=1e-6))
    buckets.file_system(bucket).pipe_file(f"{bucket}/b.npz", b"PK")
    with pytest.raises(UserError, match="b.npz' is not an .npz file"):
        load(Data(f"npz:{bucket}/b.npz"))


@pytest.mark.parametrize(("streaming", "where"), [("never", ""), ("always", "/tiny_shapes/1.0.0")])
def test_tfrecord(tmp_path, bucket, streaming, where, monkeypatch):
    prepare(tmp_path, file_format="tfrecord", shards=4, shape=(8, 8, 3))
    _upload(tmp_path, bucket)
    read = lambda place: load(
        Data(
            "tfds:tiny_shapes", dir=f"{place}{where}", streaming=streaming, train_split="train[2:]"
        )
    )
    _same(read(tmp_path), read(bucket))
    monkeypatch.setattr(tfrecord, "_scan", None)  # the index is stored in the bucket
    _same(read(tmp_path), read(bucket))


def test_formats_that_buckets_cannot_have(tmp_path, gs):
    url = f"{gs}/array_record"
    prepare(tmp_path)
    _upload(tmp_path, url)
    with pytest.raises(UserError, match="as array_record; tfrecord is needed in a bucket. Prepare"):
        load(Data("tfds:tiny_shapes", dir=url))


def test_workers_of_a_stream_make_their_own_clients(tmp_path, gs):
    url = f"{gs}/workers"
    _images(tmp_path)
    _upload(tmp_path, url)
    crops = (Crop(8, (0.2, 1.0), (0.75, 1.33)),)
    local, remote = (
        Pieces(load(Data(f"folder:{place}", streaming="always")).train, crops, 4, seed=0)
        for place in (tmp_path, url)
    )
    found = [
        np.concatenate([piece.crops[0] for step in itertools.islice(steps, 3) for piece in step])
        for steps in (local.steps(0, 0), remote.steps(0, 1))
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("source", ["folder", "npz", "tfds"])
def test_what_is_missing(bucket, source):
    scheme = bucket.partition(":")[0]
    read = lambda url: load(
        Data("tfds:tiny_shapes", dir=url) if source == "tfds" else Data(f"{source}:{url}")
    )
    with pytest.raises(UserError, match=f"The bucket {scheme}://abc-nowhere does not exist"):
        read(f"{scheme}://abc-nowhere/data")
    kind = "a file" if source == "npz" else "a folder"
    with pytest.raises(UserError, match=f"'{bucket}/data' does not exist; give {kind}"):
        read(f"{bucket}/data")
    with pytest.raises(UserError, match="abc:// is not supported; give a local path, or one of gs"):
        read("abc://bucket/data")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("Access Denied"), "credentials do not permit the use of gs://abc/x"),
        (
            OSError("Forbidden: https://...\nno access"),
            "use of gs://abc/x.* owner of gs://abc",
        ),
        (
            type("NoCredentialsError", (Exception,), {})(),
            "gs://abc needs credentials, .*: run `gcloud",
        ),
        (ConnectionError("reset"), "gs://abc cannot be reached, also after retries: reset"),
    ],
)
def test_what_is_refused(error, said):
    assert re.search(said, str(buckets.failure("gs://abc/x", error)))


def test_urls_are_absolute():
    data = Data("folder:gs://abc/x", dir="s3://abc/y")
    assert absolute(data) == data
