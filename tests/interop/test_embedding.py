"""Embeddings in files are the encoder's, also after interruptions, and of use to scikit-learn."""

import json

import jax
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.evaluation import linear_probe
from jaxclr.interop import embedding, partial
from jaxclr.interop.embedding import embed

DIGITS = Data("digits")


@pytest.fixture(scope="module")
def features(digits):
    return digits.session.subject(digits.state).features


def columns(path):
    """Embeddings, labels (-1: none), names and splits of either kind of file."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return [file[key] for key in ("embeddings", "labels", "names", "splits")]
    table = pyarrow.parquet.read_table(path)
    embeddings = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    labels = table["label"].fill_null(-1).to_numpy()
    return [
        embeddings,
        labels,
        np.array(table["name"].to_pylist()),
        np.array(table["split"].to_pylist()),
    ]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_the_encoders(digits, features, tmp_path, monkeypatch, suffix, dtype):
    monkeypatch.setattr(partial, "ROWS", 500)
    monkeypatch.setattr(embedding, "BATCH", 32)  # of each of eight devices
    out = tmp_path / f"out{suffix}"
    assert embed(digits.loaded, DIGITS, out, dtype=dtype) == {"train": 1437, "test": 360}
    embeddings, labels, names, splits = columns(out)
    np.testing.assert_array_equal(
        embeddings, np.concatenate([f.values for f in features]).astype(dtype)
    )
    np.testing.assert_array_equal(labels, np.concatenate([f.labels for f in features]))
    assert names[0] == "train 0" and names[-1] == "test 359" and len(set(names)) == 1797
    np.testing.assert_array_equal(splits, ["train"] * 1437 + ["test"] * 360)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    if suffix == ".parquet":
        file = pyarrow.parquet.ParquetFile(out)
        assert file.num_row_groups == 4
        told = json.loads(file.schema_arrow.metadata[b"jaxclr"])
        assert told["step"] == 3 and told["classes"] == [str(digit) for digit in range(10)]


def test_scikit_learn_finds_the_same_accuracy(digits, features, tmp_path):
    """On what a file holds, with the same ridge, the linear probe of `jaxclr evaluate`."""
    (train, train_y), (test, test_y) = features
    ours = linear_probe(train, train_y, test, test_y, classes=10, seed=0, grid=(1e-2,))
    embed(digits.loaded, DIGITS, tmp_path / "out.parquet")
    embeddings, labels, _, splits = columns(tmp_path / "out.parquet")
    train, test = splits == "train", splits == "test"
    scaler = StandardScaler().fit(embeddings[train])
    model = LogisticRegression(C=1 / (ours.l2 * train.sum()), max_iter=1000)
    model.fit(scaler.transform(embeddings[train]), labels[train])
    theirs = model.score(scaler.transform(embeddings[test]), labels[test])
    assert ours.accuracy > 0.5
    assert theirs == pytest.approx(ours.accuracy, abs=1.01 / 360)


@pytest.mark.parametrize(
    "suffix, stopped, left", [(".npz", 500, 6), (".parquet", 500, 6), (".parquet", 1437, 2)]
)
def test_an_interrupted_one_goes_on(digits, tmp_path, monkeypatch, suffix, stopped, left):
    monkeypatch.setattr(embedding, "BATCH", 32)  # of each of eight devices
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    embed(digits.loaded, DIGITS, whole)

    def stop(done, count):
        assert count == 1797
        if done >= stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(digits.loaded, DIGITS, out, report=stop)
    assert not out.exists()
    # A file that was being written when a process was killed.
    folder = tmp_path / f"{out.name}.part"
    (folder / f"{len(list(folder.glob('*.npz')))}.npz").write_bytes(b"half a")
    with pytest.raises(
        UserError, match="of another kind: its dtype is float32, asked for is float16"
    ):
        embed(digits.loaded, DIGITS, out, dtype="float16")

    calls = []
    embed(digits.loaded, DIGITS, out, report=lambda *done: calls.append(done))
    assert len(calls) == left  # of six batches of train and two of test
    for one, other in zip(columns(whole), columns(out), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not folder.exists()


def test_files_are_named_and_damaged_ones_left_out(digits, tmp_path):
    for index in range(12):
        path = tmp_path / "photos" / "ab"[index % 2] / f"{index:02}\n é.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * index, np.uint8)).save(path)
    damaged = tmp_path / "photos" / "a" / "04\n é.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    data = {"test_fraction": 0.0, "skip_corrupt": True}
    streamed = Data(f"folder:{tmp_path}/photos", streaming="always", image_size=8, **data)
    in_memory = Data(f"folder:{tmp_path}/photos", **data)
    embed(digits.loaded, streamed, tmp_path / "streamed.npz")
    embed(digits.loaded, in_memory, tmp_path / "in_memory.parquet")
    embeddings, labels, names, _ = columns(tmp_path / "streamed.npz")
    files = sorted(path for path in (tmp_path / "photos").rglob("*.png") if path != damaged)
    np.testing.assert_array_equal(names, [str(file) for file in files])
    np.testing.assert_array_equal(labels, [0] * 5 + [1] * 6)
    images = np.stack([np.asarray(Image.open(file))[..., None] for file in files])
    np.testing.assert_allclose(embeddings, digits.loaded.encode(images), rtol=1e-5, atol=1e-6)
    for one, other in zip(
        columns(tmp_path / "in_memory.parquet"), columns(tmp_path / "streamed.npz"), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_is_told_before_anything_is_written(digits, tmp_path):
    np.savez(tmp_path / "colour.npz", images=np.zeros((20, 8, 8, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"ends in '.csv'; give a name that ends in .npz or .parquet"
    ):
        embed(digits.loaded, DIGITS, tmp_path / "out.csv")
    with pytest.raises(
        UserError, match="3 channel.*, the encoder takes 1; set --data.channels gray"
    ):
        embed(digits.loaded, Data(f"npz:{tmp_path}/colour.npz"), tmp_path / "out.npz")
    with pytest.raises(UserError, match="colour.npz exists. Replace it with --overwrite"):
        embed(digits.loaded, DIGITS, tmp_path / "colour.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["colour.npz"]
    endless = digits.loaded._replace(
        represent=lambda *arguments: digits.loaded.represent(*arguments) + 1e5
    )
    with pytest.raises(UserError, match="'train 0' is not finite in float16; set --dtype float32"):
        embed(endless, DIGITS, tmp_path / "out.npz", dtype="float16")
    nan = digits.loaded._replace(
        represent=lambda _, images: jax.numpy.full((len(images), 2), jax.numpy.nan)
    )
    with pytest.raises(UserError, match="not finite in float32; the run has diverged"):
        embed(nan, DIGITS, tmp_path / "other.npz")
