"""Streams: crops on the host against views on a device, pieces by number, damaged files."""

import multiprocessing
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxclr.augment import Augmentation, PhotoView
from jaxclr.augment.boxes import crop_box
from jaxclr.data import Data, Stream, images, load, pixels
from jaxclr.data.crops import Boxes, Crop, crop_draws, take_crops
from jaxclr.data.image_folder import _encoded
from jaxclr.data.pieces import UNGUARDED, Pieces, end_if_worker, read_in_workers
from jaxclr.errors import UserError

SEED, STEP = 5, 3
ONLY_CROP = PhotoView(size=12, flip=0, jitter=0, grayscale=0)
SMALL = PhotoView(size=7, crop_scale=(0.05, 0.3), flip=0, jitter=0, grayscale=0)
CROPS = tuple(Crop(view.size, view.crop_scale, view.crop_ratio) for view in (ONLY_CROP, SMALL))


def smooth(rng, height, width):
    """A picture that resampling changes little: noise of few pixels, enlarged."""
    few = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return few.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of ten images, of mixed sizes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(20):
        path = root / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        smooth(rng, 20 + index, 40 - index).save(path)
    return root


def streamed(folder, **fields):
    return load(Data(f"folder:{folder}", **{"streaming": "always", "test_fraction": 0.0, **fields}))


def pieces(folder, crops=CROPS, batch_size=6, **fields):
    return Pieces(streamed(folder).train, crops, batch_size, SEED, **fields)


def test_host_crops_are_the_devices_in_eight_bits(folder):
    """Same boxes from the same keys, same filter: Pillow's rounding twice is all that differs."""
    rng = np.random.default_rng(1)
    pictures = [smooth(rng, 30, 40) for _ in range(16)]
    paths = [folder.parent / f"{folder.name}-{row}.png" for row in range(16)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    draws = crop_draws(SEED, STEP, np.arange(16), 2)
    host = [
        take_crops(_encoded(str(p)), Boxes(CROPS, draws), row, Data("folder:x"))
        for row, p in enumerate(paths)
    ]
    key = jax.random.fold_in(jax.random.key(SEED), STEP)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, np.arange(16))
    views = jax.jit(Augmentation((ONLY_CROP, SMALL)))(
        keys, np.stack([np.asarray(p) for p in pictures])
    )
    for mine, view in zip(zip(*host, strict=True), views, strict=True):
        assert np.stack(mine).dtype == np.uint8
        np.testing.assert_allclose(np.stack(mine) / 255, view, atol=1.5 / 255)


def test_what_follows_the_crop_draws_as_in_the_whole_view():
    """A crop of the whole image that is not resampled leaves only what follows."""
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}
    view = PhotoView(size=16, blur=0.5, solarize=0.3, **whole)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    keys = jax.random.split(jax.random.key(0), 8)
    augmentation = Augmentation((view, view))
    got = jax.jit(augmentation.after_crop)(keys, (pixels, pixels))
    for one, other in zip(got, jax.jit(augmentation)(keys, pixels), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    with pytest.raises(ValueError, match="must have that size, got .*12, 12, 3"):
        view.after_crop(keys, pixels[:, :12, :12])


def test_boxes_of_several_rows_are_those_of_each():
    draws = crop_draws(SEED, STEP, np.arange(500), 2)
    boxes = Boxes(CROPS, draws)
    for row in range(500):
        height, width = 20 + row % 7 // 6, 32
        alone = [
            np.concatenate(crop_box(draws[row, v, None], height, width, crop.scale, crop.ratio))
            for v, crop in enumerate(CROPS)
        ]
        np.testing.assert_array_equal(boxes.of(row, height, width), alone)


def test_a_large_jpeg_is_decoded_small(tmp_path, monkeypatch):
    path = tmp_path / "large.jpg"
    smooth(np.random.default_rng(0), 401, 603).save(path, quality=95)
    boxes = Boxes(CROPS, crop_draws(SEED, STEP, np.arange(1), 2))
    seen = []
    original = pixels.decoded

    def watched(*arguments):
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr("jaxclr.data.crops.decoded", watched)
    small = take_crops(_encoded(str(path)), boxes, 0, Data("folder:x"))
    monkeypatch.setattr("jaxclr.data.crops.REDUCTIONS", ())
    whole = take_crops(_encoded(str(path)), boxes, 0, Data("folder:x"))
    assert [decoded.pixels.size for decoded in seen] == [(76, 51), (603, 401)]
    for one, other in zip(small, whole, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3


def test_pieces_are_those_of_any_start_shard_and_thread(folder):
    one = pieces(folder)
    steps = one.steps(0, 0)
    first = [next(steps) for _ in range(5)]  # of epochs of three
    steps.close()
    later = one.steps(3, 0)
    for (got,), (want,) in zip((next(later), next(later)), first[3:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, got, want)
    later.close()
    halves = [pieces(folder, shard=shard, shards=2)[4] for shard in (0, 1)]
    jax.tree.map(
        lambda a, b, c: np.testing.assert_array_equal(np.concatenate([a, b]), c),
        *halves,
        first[4][0],
    )
    epoch = np.concatenate([piece.indices for (piece,) in first[:3]])
    assert len(set(epoch.tolist())) == 18 and not np.array_equal(epoch[:6], first[3][0].indices)
    assert (first[0][0].labels == first[0][0].indices // 10).all()
    assert not np.array_equal(first[0][0].crops[0], one[3].crops[0])
    with pytest.raises(ValueError, match="shards = 2 and shard = 2"):
        pieces(folder, shard=2, shards=2)


def test_workers_make_what_threads_make_and_one_that_dies_is_told(folder, monkeypatch):
    """Two pieces a step, from the middle of a run; a worker that used a JAX device would fail."""
    monkeypatch.setenv("JAX_PLATFORMS", "nowhere")
    large = pieces(folder, crops=(CROPS[0]._replace(size=450),) * 2)
    assert large.per_step == 2
    threads, workers = large.steps(2, 0), large.steps(2, 2)
    try:
        for _ in range(2):
            for want, got in zip(next(threads), next(workers), strict=True):
                jax.tree.map(np.testing.assert_array_equal, got, want)
        del got  # its memory is shared with a worker
        multiprocessing.active_children()[0].kill()
        with pytest.raises(
            UserError,
            match=r"A data worker process died .*-9.*There were 2 workers; use fewer with --data",
        ):
            for _ in range(20):
                next(workers)  # what it had made comes first
    finally:
        threads.close()
        workers.close()


class Unguarded:
    """A source whose worker has imported a main file that trains."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise RuntimeError(f"Worker was terminated unexpectedly with exit code {UNGUARDED}. Search")


def test_a_script_whose_workers_would_train_is_told_of_its_guard(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    end_if_worker()
    assert not ended
    worker = multiprocessing.current_process()
    monkeypatch.setattr(worker, "_inheriting", True, raising=False)  # as in multiprocessing.spawn
    end_if_worker()
    assert ended == [UNGUARDED]
    with pytest.raises(UserError, match='under `if __name__ == "__main__":`, or set workers to 0'):
        next(read_in_workers(Unguarded(), 0, 0))


def test_workers_end_when_their_process_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal\n"
        "from jaxclr.data.pieces import read_in_workers\n"
        'if __name__ == "__main__":\n'
        "    items = read_in_workers(list(range(9)), 0, 1)\n"
        "    print(next(items), next(items), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The worker holds the pipe of the output open as long as it lives.
    killed = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, timeout=300)
    assert killed.returncode == -signal.SIGKILL and killed.stdout == b"0 1\n"


def test_a_damaged_image_is_named_or_its_neighbor_takes_its_place(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(6):
        smooth(rng, 30, 30).save(tmp_path / f"{index}.png")
    bad = tmp_path / "2.png"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(UserError, match="2.png' is damaged .*--data.skip-corrupt"):
        Pieces(streamed(tmp_path).train, CROPS, 6, SEED)[0]
    train = streamed(tmp_path, skip_corrupt=True).train
    piece = Pieces(train, CROPS, 6, SEED)[0]
    np.testing.assert_array_equal(piece.indices, np.where(piece.wanted == 2, 3, piece.wanted))
    (rows,) = train.plain(9, batch=6)
    assert rows.indices.tolist() == [0, 1, 3, 3, 4, 5] and rows.labels.tolist() == [-1] * 6
    assert train.name(2) == str(bad) and train.sample(9).shape == (6, 9, 9, 3)
    for file in tmp_path.iterdir():
        file.write_text("x")
    with pytest.raises(UserError, match="100 consecutive files cannot be read"):
        Pieces(train, CROPS, 6, SEED)[0]


def test_mixed_channels_are_refused(tmp_path):
    smooth(np.random.default_rng(0), 30, 30).save(tmp_path / "0.png")
    smooth(np.random.default_rng(0), 30, 30).convert("L").save(tmp_path / "1.png")
    with pytest.raises(
        UserError, match="1.png' is grayscale, and .* are RGB. Set --data.channels rgb"
    ):
        Pieces(streamed(tmp_path).train, CROPS, 2, SEED)[0]
    assert (
        Pieces(streamed(tmp_path, channels="gray").train, CROPS, 2, SEED)[0].crops[0].shape[-1] == 1
    )


def test_listing_opens_one_file(folder, monkeypatch):
    opened = []
    original = images.open_image
    monkeypatch.setattr(
        images, "open_image", lambda file: opened.append(file.name) or original(file)
    )
    dataset = streamed(folder, test_fraction=0.2)
    assert len(opened) == 1
    assert isinstance(dataset.train, Stream) and (dataset.train.size, dataset.test.size) == (16, 4)
    assert sorted(row.labels[0] for row in dataset.test.plain(8, batch=1)) == [0, 0, 1, 1]


def test_size_decides(folder):
    assert not isinstance(load(Data(f"folder:{folder}", image_size=16)).train, Stream)
    dataset = load(Data(f"folder:{folder}", image_size=16, memory_limit=1e-6))
    assert (
        dataset.train.why
        == "in memory they would take 1.43e-05 GiB, and data.memory_limit is 1e-06"
    )
    with pytest.raises(UserError, match="'digits' holds arrays, not image files"):
        load(Data(streaming="always"))
