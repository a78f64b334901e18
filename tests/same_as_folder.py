"""The same images as a folder and in another form: same splits, batches and parameters."""

import dataclasses
import functools
import io
import pickle

import jax
import numpy as np
from PIL import Image
from tiny import tiny_config

from jaxclr.augment import Augmentation, PhotoView
from jaxclr.data import Data, load
from jaxclr.training.feed import open_feed
from jaxclr.training.loop import compile_step
from jaxclr.training.session import open_session

CLASSES = ("bird", "cat", "dog")
VIEW = PhotoView(size=8, crop_scale=(0.5, 1.0))


@functools.cache
def images(count=39):
    """Files of three classes in the order of a folder: class, name and bytes of each."""
    rng = np.random.default_rng(count)
    found = []
    for index in range(count):
        pixels = rng.integers(0, 256, (10 + index % 3, 12, 3), dtype=np.uint8)
        stream, kind = io.BytesIO(), ("png", "jpg")[index % 2]
        Image.fromarray(pixels).save(stream, {"png": "PNG", "jpg": "JPEG"}[kind])
        found.append((CLASSES[index * 3 // count], f"{index:03}.{kind}", stream.getvalue()))
    return found


def write_folder(root, files):
    for label, name, content in files:
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / name).write_bytes(content)


def check_same(folder, source, workers=0):
    """Images in memory, the batches of a stream and the parameters they lead to."""
    for fields in ({"train_split": None}, {"labels": "none"}):
        mine, theirs = (load(Data(of, image_size=8, **fields)) for of in (source, folder))
        assert mine.classes == theirs.classes and mine.test is not None
        for one, other in ((mine.train, theirs.train), (mine.test, theirs.test)):
            np.testing.assert_array_equal(one.examples, other.examples)
            np.testing.assert_array_equal(one.labels, other.labels)
            assert len(one.names) == len(other.names)
    got, want = streamed(source, workers), streamed(folder)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@functools.cache
def streamed(source, workers=0):
    """Three batches across the end of an epoch, as a worker reads them, and parameters after."""
    session, first, step = opened()
    state = first()  # a new one, because the step reuses its memory
    changes = {"source": source, "streaming": "always", "workers": workers}
    data = dataclasses.replace(session.config.data, **changes)
    session = session._replace(
        config=dataclasses.replace(session.config, data=data),
        dataset=pickle.loads(pickle.dumps(load(data))),
    )
    feed, taken = open_feed(session, start=1, report=print), []
    for _ in range(3):
        batch = next(feed.batches)
        taken.append(jax.device_get(batch))
        state, _ = jax.block_until_ready(step(state, batch))
    feed.close()
    return taken, jax.device_get(state.params)


@functools.cache
def opened():
    """A session, its first state and its step, for images of any source."""
    data = Data("digits", mean=(0.3,) * 3, std=(0.4,) * 3, channels="rgb", workers=0, image_size=8)
    config = tiny_config("sup_con", data=data, augmentation=Augmentation((VIEW, VIEW)))
    session = open_session(config)
    return session, jax.jit(session.init_state), compile_step(session)
