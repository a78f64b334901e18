"""A run on a stream: what it trains on, where it resumes, and its images without augmentation."""

import dataclasses
import io

import jax
import numpy as np
import pytest
import rich.console
from clusters import Clusters
from PIL import Image
from tiny import tiny_config

from jaxclr import training
from jaxclr.augment import Augmentation, PhotoView
from jaxclr.data import Data, Stream
from jaxclr.errors import UserError
from jaxclr.evaluation.closing import monitor
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.refresh import compile_refresh
from jaxclr.training.feed import open_feed

QUIET = rich.console.Console(file=io.StringIO())
VIEW = PhotoView(size=8, crop_scale=(0.5, 1.0))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Of 40 training images of 12 x 12: 2 epochs of two steps, with a refresh before the second."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(50):
        path = root / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    data = Data(f"folder:{root}", streaming="always", workers=0, image_size=12)
    changes = dict(
        data=data, augmentation=Augmentation((VIEW, VIEW)), log_every=1, checkpoint_every=1
    )
    return tiny_config(Clusters(), **changes)


@pytest.fixture(scope="module")
def session(config):
    return training.open_session(config)


@pytest.fixture(scope="module")
def resident(session):
    """The same run with its images in memory."""
    data = dataclasses.replace(session.config.data, streaming="never")
    return training.open_session(dataclasses.replace(session.config, data=data))


def batches(session, start, count, **changes):
    data = dataclasses.replace(session.config.data, **changes)
    here = session._replace(config=dataclasses.replace(session.config, data=data))
    feed = open_feed(here, start=start, report=print)
    taken = [jax.device_get(next(feed.batches)) for _ in range(count)]
    feed.close()
    return taken


def test_it_says_what_was_chosen_and_measured(session, resident):
    streamed, measured = session.notes
    assert "streamed" in streamed and "data.streaming is always" in streamed
    assert "a sample of 40 images" in measured
    assert "in memory" in resident.notes[0] and len(resident.notes) == 1
    # The sample is the whole of so small a split.
    everything = resident.dataset.train.examples.reshape(-1, 3) / 255
    np.testing.assert_allclose(session.config.data.mean, everything.mean(0), rtol=1e-6)


def test_a_stream_visits_the_images_that_memory_would(session, resident):
    for streamed, held in zip(batches(session, 0, 4), batches(resident, 0, 4), strict=True):
        np.testing.assert_array_equal(streamed.indices, held.indices)
        np.testing.assert_array_equal(streamed.labels, held.labels)
        assert [crop.shape for crop in streamed.examples] == [(16, 8, 8, 3)] * 2


@pytest.mark.usefixtures("one_program")
def test_a_stopped_run_resumes_to_the_same_bits(session, tmp_path):
    """Right before a refresh, which comes between the epochs, and in the middle of the second."""
    states = []
    for name, stops in (("whole", (None,)), ("stopped", (2, 3, None))):
        run = RunFolder(tmp_path / name)
        run.create(session.config, overwrite=False)
        for stop in stops:
            state = training.train(session, run, console=QUIET, stop_after=stop)
        states.append(jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert states[0].step == 4 and states[0].method_state["times"] == 1


def test_features_and_refresh_are_those_of_images_in_memory(session, resident):
    state = session.init_state()
    for here, held in zip(
        (session.dataset.train, session.dataset.test),
        (resident.dataset.train, resident.dataset.test),
        strict=True,
    ):
        features = (session.subject(state).represent(here), resident.subject(state).represent(held))
        jax.tree.map(np.testing.assert_array_equal, *features)
    assert 0 <= monitor(session.subject(state))["knn_20"] <= 1
    one, other = (
        jax.device_get(
            compile_refresh(here.recipe, here.mesh, here.plain_size)(state, images).method_state[
                "embeddings"
            ]
        )
        for here, images in (
            (session, session.dataset.train),
            (resident, resident.dataset.train.examples),
        )
    )
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_damaged_images_are_counted_and_left_out(session, tmp_path):
    train = session.dataset.train
    assert isinstance(train, Stream)
    for index in range(16):
        pixels = np.full((12, 12, 3), 16 * index, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:02}.png")
    (tmp_path / "03.png").write_text("no image")
    data = dataclasses.replace(
        session.config.data, source=f"folder:{tmp_path}", skip_corrupt=True, test_fraction=0.0
    )
    damaged = training.open_session(dataclasses.replace(session.config, data=data))
    said = []
    feed = open_feed(damaged, start=0, report=said.append)
    for _ in range(3):
        next(feed.batches)
    feed.close()
    (line,) = said
    assert line.startswith("1 damaged image(s) left out so far") and "03.png" in line


def test_views_that_do_not_crop_are_refused(config):
    whole = tiny_config().augmentation
    with pytest.raises(
        UserError, match="DigitView takes uncropped images, and a stream gives crops"
    ):
        training.open_session(dataclasses.replace(config, augmentation=whole))
