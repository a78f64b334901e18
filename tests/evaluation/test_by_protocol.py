"""Protocols on a run: other data, seeds, the record and its table, streams."""

import dataclasses

import jax
import numpy as np
import pytest
import rich.console
from PIL import Image
from tiny import opened, tiny_config

from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.evaluation.by_protocol import evaluate, protocol_table
from jaxclr.evaluation.protocols import Arc, ClusterAgreement, FewShot, FineTune, Knn
from jaxclr.evaluation.subject import load_like


@pytest.fixture(scope="module")
def tiny():
    session, state = opened(tiny_config())
    return session.subject(state)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Data of 60 images in .npz files, by name."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8), np.uint8), np.arange(60) % 3
    np.savez(folder / "letters.npz", images=images, labels=labels)
    np.savez(folder / "colours.npz", images=np.stack([images] * 3, axis=3), labels=labels)
    np.savez(folder / "pixels.npz", images=images[:, :1, :1], labels=labels)
    np.savez(folder / "unlabelled.npz", images=images)
    return lambda name: Data(f"npz:{folder}/{name}.npz")


def on_data(subject, data):
    found = load_like(subject.data, data, subject.recipe.augmentation)
    return dataclasses.replace(subject, **found._asdict())


def shown(record):
    console = rich.console.Console(width=200)
    with console.capture() as capture:
        console.print(protocol_table(record))
    return capture.get()


def test_seeds_repeat_what_is_drawn_and_the_record_has_every_value(tiny):
    protocol = FewShot(per_class=(2,), draws=2, alphas=(10.0,))
    record = evaluate(tiny, protocol, seeds=3)
    found = record["figures"]["2 labels"]
    assert record["seeds"] == [0, 1, 2] and len(set(found["values"])) > 3
    assert found["mean"] == pytest.approx(np.mean(found["values"]))
    assert found["std"] == pytest.approx(np.std(found["values"], ddof=1))
    assert record["settings"] == dataclasses.asdict(protocol)
    assert f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f}" in shown(record)
    assert evaluate(tiny, Knn(), seeds=3)["seeds"] == [0]  # which draws nothing


def test_other_data_are_seen_as_the_runs_own(tiny, sources):
    other = on_data(tiny, sources("letters"))
    assert other.recipe is tiny.recipe and other.data.mean == tiny.data.mean
    record = evaluate(other, Knn(k=3))
    assert (record["train_images"], record["test_images"]) == (48, 12)
    assert record["data"]["source"] == sources("letters").source
    assert on_data(tiny, tiny.data).data == tiny.data


@pytest.mark.full
def test_arc_needs_no_labels(tiny, sources):
    record = evaluate(on_data(tiny, sources("unlabelled")), Arc(views=3))
    # The state is that of the untrained network.
    assert record["figures"]["ARC"]["mean"] == 1.0
    acr = record["figures"]["ACR"]["mean"]
    assert 0 < acr < 1 and f"{acr:.4f}" in shown(record)


@pytest.mark.full
def test_fine_tuning_reads_streams(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / str(label)).mkdir()
        for index in range(20):
            pixels = rng.integers(128 * label, 128 * label + 100, (9, 11), np.uint8)
            Image.fromarray(pixels).save(tmp_path / str(label) / f"{index}.png")
    data = Data(f"folder:{tmp_path}", streaming="always")
    with pytest.raises(
        UserError, match="does not tell the size of its images; set --data.image-size"
    ):
        on_data(tiny, data)
    streamed = on_data(tiny, dataclasses.replace(data, image_size=8))
    protocol = FineTune(learning_rates=(0.3,), epochs=10, batch_size=16, least_steps=1)
    record = evaluate(streamed, protocol)
    assert record["figures"]["accuracy"]["mean"] > 0.8


def test_refuses(tiny, sources):
    with pytest.raises(
        UserError, match=r"3 channel\(s\), the encoder takes 1; set --data.channels gray"
    ):
        on_data(tiny, sources("colours"))
    with pytest.raises(UserError, match="Images of 1 x 1 pixels are too small for SmallConv"):
        evaluate(on_data(tiny, sources("pixels")), Knn())
    with pytest.raises(UserError, match="'unlabelled' has no labeled test split"):
        evaluate(on_data(tiny, sources("unlabelled")), ClusterAgreement())
    with pytest.raises(UserError, match="leave --data.mean and --data.std out"):
        on_data(tiny, dataclasses.replace(sources("letters"), mean=(0.5,), std=(0.5,)))
    nan = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), tiny.state.params)
    with pytest.raises(UserError, match="parameters or statistics of step 0 are not finite"):
        evaluate(tiny.at(tiny.state.replace(params=nan)), Knn())
