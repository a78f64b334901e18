"""Observation during training: warnings, images of the test split, statistics of two views."""

import types

import jax
import numpy as np
import pytest
from tiny import opened, tiny_config

from jaxclr.runs.folder import RunFolder
from jaxclr.training import snapshots
from jaxclr.training.snapshots import compile_embed_pair, fixed_examples
from jaxclr.training.watch import Watch


def test_the_first_tenth_of_a_run_is_given_time_to_spread():
    session, _ = opened(tiny_config())
    watch, tenth = Watch(session), -(-session.steps // 10)
    point = {
        "effective_rank": np.float32(8),
        "total_variance": np.float32(0),
        "spectrum": np.zeros(8, np.float32),
    }
    lines, said = [], []
    log = types.SimpleNamespace(
        write=lambda step, values: lines.append((step, *values)), say=said.append
    )
    for step in (tenth - 1, tenth, tenth + 1):
        watch._pending.append((step, point))
        watch.write(log)
    assert [line for line in lines if "warning" in line] == [(tenth, "warning")]
    assert len(said) == 1 and said[0].startswith(
        f"WARNING, step {tenth}: the embeddings are contracting to a point"
    )


def test_queries_are_of_the_test_split():
    session, _ = opened(tiny_config())
    fixed, dataset = fixed_examples(session), session.dataset
    np.testing.assert_array_equal(fixed.queries, dataset.test.examples)
    np.testing.assert_array_equal(fixed.query_labels, dataset.test.labels)
    assert len(fixed.gallery) == 1000 and (fixed.gallery[-1] == dataset.train.examples[-1]).all()


@pytest.mark.parametrize("pictured", [True, False])
def test_only_images_leave_pictures(tmp_path, monkeypatch, pictured):
    session, state = opened(tiny_config(observe_every=5))
    if not pictured:
        monkeypatch.setattr(snapshots, "is_displayable", lambda _: False)
    run = RunFolder(tmp_path)
    snapshots.Snapshots(session, run).take(state, 0)
    files = {path.name for path in run.snapshots.iterdir()}
    assert files == {"0.npz", "labels.npz", *["images.npz"] * pictured}
    with np.load(run.snapshots / "labels.npz") as labels:
        np.testing.assert_array_equal(labels["query_labels"], session.dataset.test.labels)
        assert labels["classes"].tolist() == list(session.dataset.classes)
    with np.load(run.snapshots / "0.npz") as arrays:
        counts = {name: len(rows) for name, rows in arrays.items()}
    assert counts == {"gallery": 1000, "queries": 360, "rows": 96, "columns": 96}


def test_images_of_bytes_can_be_shown_whatever_their_channels():
    shown = lambda *shape, dtype=np.uint8: snapshots.is_displayable(np.zeros(shape, dtype))
    assert shown(2, 4, 4, 1) and shown(2, 4, 4, 2) and shown(2, 4, 4, 13)
    assert not shown(2, 4, 4) and not shown(2, 4, 4, 3, dtype=np.float32)
    assert not snapshots.is_displayable({"x": np.zeros((2, 4, 4, 3), np.uint8)})


def test_an_affinity_matrix_is_of_two_views_and_needs_no_running_statistics():
    session, state = opened(tiny_config())
    images = session.dataset.train.examples[:24]
    embed_pair = compile_embed_pair(session)
    pairs = [
        embed_pair({"params": state.params, "batch_stats": statistics}, images)
        for statistics in (
            state.batch_stats,
            jax.tree.map(lambda leaf: 3 * leaf + 1, state.batch_stats),
        )
    ]
    (rows, columns), again = (tuple(np.asarray(z, np.float32) for z in pair) for pair in pairs)
    np.testing.assert_array_equal((rows, columns), again)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)
    assert rows.shape == columns.shape == (24, 8) and np.abs(rows - columns).max() > 0.1
