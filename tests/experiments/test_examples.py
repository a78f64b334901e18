"""The worked examples: views, data and networks are what they promise, and each trains."""

import dataclasses
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from jaxclr.runs.folder import RunFolder
from jaxclr.training.loop import train
from jaxclr.training.session import open_session

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.fixture
def example(monkeypatch):
    """Imports an example as a script does; examples are a user's code, and may promote ranks."""
    monkeypatch.syspath_prepend(FOLDER)
    with jax.numpy_rank_promotion("allow"):
        yield importlib.import_module


@pytest.mark.parametrize("name", ["own_encoder", "time_series", "image_text", "graph"])
def test_an_example_trains(example, name, tmp_path):
    config = example(name).config()
    session = open_session(dataclasses.replace(config, log_every=1, observe_every=0))
    folder = RunFolder(tmp_path / "run")
    folder.create(session.config, overwrite=False)
    train(session, folder, console=rich.console.Console(quiet=True), stop_after=2)
    losses = [line["loss"] for line in folder.lines() if "loss" in line]
    assert np.isfinite(losses).all() and len(losses) == 2


def test_time_is_warped_forwards_and_ends_where_it_ended(example):
    series = example("time_series")
    ramp = jnp.linspace(0, 1, 64)[:, None] * jnp.ones(3)
    distances = []
    for seed in range(5):
        warped = series.warped(jax.random.key(seed), ramp)
        assert (jnp.diff(warped, axis=0) > 0).all()
        np.testing.assert_allclose(warped[jnp.array([0, -1])], ramp[jnp.array([0, -1])], atol=1e-5)
        distances.append(jnp.abs(warped - ramp).max())
    assert max(distances) > 0.01


def test_an_eighth_of_a_series_is_masked(example):
    masked = example("time_series").masked(jax.random.key(0), jnp.ones((64, 3)))
    assert (masked == 0).all(axis=1).sum() == 8 and (masked == 0).sum() == 24


def test_raw_waveforms_do_not_show_their_class(example):
    """The mean series of every class is noise around zero, as phases are random."""
    series = example("time_series")
    x, labels = series.waveforms(1200, seed=0)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(len(series.CLASSES))])
    assert np.abs(means).mean() < 0.1 * x.std()


def test_words_have_a_row_for_each_language_and_digit(example):
    words = example("image_text")
    assert (
        words.WORDS.shape == (len(words.NAMES), 10, words.LENGTH)
        and (words.WORDS[..., 0] > 0).all()
    )
    (train, labels, test, _) = words.pairs()
    assert len(labels) == 1437 and len(test["image"]) == 360
    names = words.WORDS[:, labels[0]]
    assert (train["word"][0] == names).all(axis=-1).any()


def test_zero_shot_takes_the_nearest_names(example):
    words = example("image_text")
    texts = np.tile(np.eye(10), (len(words.NAMES), 1))
    found = words.zero_shot(np.eye(10)[[3, 1, 4]], texts)
    np.testing.assert_array_equal(found, [3, 1, 4])


def test_target_images_are_photographs_under_digits(example):
    """Half of each pixel is a photograph's, and test patches are of other parts of it."""
    example = example("sep_clr")
    problem = (images, places, digits), (test, _, test_digits) = example.problem()
    background = digits < 0
    assert background.sum() == example.TRAIN and (test_digits >= 0).sum() == example.TEST
    assert images[background].max() <= 128 < images[~background].max()
    assert set(places) == set(range(16)) and set(digits[~background]) == set(range(10))
    bright = lambda split: np.unique(split.reshape(len(split), -1), axis=0)
    train = {row.tobytes() for row in bright(images[background])}
    assert not any(row.tobytes() in train for row in bright(test[test_digits < 0]))
    split = open_session(example.config(images=problem)).dataset.train
    np.testing.assert_array_equal(split.labels, digits >= 0)


def test_surroundings_are_enough_for_two_graph_convolutions(example):
    """The network on each node's surroundings is the one on the whole graph."""
    graph = example("graph")
    seen = graph.surroundings(np.arange(graph.NODES))
    found, variables = graph.Gcn().init_with_output(jax.random.key(0), seen)
    first, second = (variables["params"][f"Dense_{layer}"] for layer in (0, 1))
    around = graph.ADJACENCY + np.eye(graph.NODES)
    around /= around.sum(axis=1, keepdims=True)
    hidden = np.maximum(around @ graph.X @ first["kernel"] + first["bias"], 0)
    np.testing.assert_allclose(
        found, around @ hidden @ second["kernel"] + second["bias"], atol=1e-5
    )


def test_views_of_a_graph_drop_edges_but_never_loops(example):
    graph = example("graph")
    nodes = np.arange(50)
    whole, seen = (
        graph.surroundings(nodes),
        graph.view(jax.random.split(jax.random.key(0), 50), nodes),
    )
    for edges in ("inner", "outer"):
        assert seen[edges][..., 0].all() and not (seen[edges] & ~whole[edges]).any()
        kept = seen[edges][..., 1:].sum() / whole[edges][..., 1:].sum()
        assert abs(kept - (1 - graph.DROP_EDGES)) < 0.1
    masked = (seen["features"] == 0).all(axis=(1, 2)).mean()
    assert abs(masked - graph.MASK_FEATURES) < 0.05
