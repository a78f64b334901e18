"""A method's refresh at the start of an epoch: its input, its time, and resumed runs."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from clusters import Clusters
from distributed import mesh
from tiny import tiny_config

from jaxclr import training
from jaxclr.methods import Shared
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.refresh import compile_refresh

QUIET = rich.console.Console(file=io.StringIO())

pytestmark = pytest.mark.full  # minutes on two cores


# 11 steps an epoch; 3 epochs
CONFIG = tiny_config(Clusters(), batch_size=128, epochs=3)


@pytest.fixture(scope="module")
def session():
    return training.open_session(CONFIG)


def train(session, folder, *stops):
    """The states in which a run is that stops, and goes on, after so many steps."""
    run = RunFolder(folder)
    run.create(session.config, overwrite=False)
    trained = (training.train(session, run, console=QUIET, stop_after=stop) for stop in stops)
    return [jax.device_get(state) for state in trained]


@pytest.fixture(scope="module")
def stopped(session, tmp_path_factory):
    """Stopped before the first refresh, at the second refresh, right after it, and at the end."""
    return train(session, tmp_path_factory.mktemp("runs") / "stopped", 5, 22, 23, 33)


def test_a_stopped_run_resumes_to_the_same_bits(session, stopped, tmp_path):
    (whole,) = train(session, tmp_path / "whole", None)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(stopped[-1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_comes_before_every_epoch_from_the_first_it_is_wanted(stopped):
    assert [int(state.method_state["times"]) for state in stopped] == [0, 1, 2, 2]
    draws = [float(state.method_state["draw"]) for state in stopped]
    assert draws[0] == 0 and len(set(draws[:3])) == 3 and draws[2] == draws[3]


def embeddings(session, params, stats):
    """Of all training images as they are, by an independent road: in one piece, on one device."""
    pixels = (session.dataset.train.examples / 255 - CONFIG.data.mean[0]) / CONFIG.data.std[0]
    network = session.recipe.network.clone(predictor=None)
    embed = jax.jit(lambda variables, x: network.apply(variables, x, train=False).embedding)
    return embed({"params": params, "batch_stats": stats}, jnp.asarray(pixels, jnp.float32))


def test_it_sees_the_momentum_encoders_embeddings_in_their_places(session, stopped):
    _, before, after, _ = stopped
    want = embeddings(session, before.target_params, before.target_batch_stats)
    np.testing.assert_allclose(after.method_state["embeddings"], want, atol=1e-5)
    assert not np.allclose(embeddings(session, before.params, before.batch_stats), want, atol=1e-2)


def refreshed(session, devices, state):
    here = session._replace(mesh=mesh(devices))
    put = lambda tree: jax.device_put(tree, jax.sharding.NamedSharding(here.mesh, jax.P()))
    state = compile_refresh(here.recipe, here.mesh, here.plain_size)(
        put(state), put(session.dataset.train.examples)
    )
    return jax.device_get(state.method_state)


def test_devices_agree_and_a_bad_step_keeps_its_state(session, stopped, monkeypatch):
    before, after = stopped[1:3]
    want = after.method_state
    monkeypatch.setattr("jaxclr.steps.refresh.ROWS", 100)  # two chunks on each of 8 devices
    for devices in (1, 8):
        got = refreshed(session, devices, before)
        for name in want.keys() - {"walk"}:  # which the step after the refresh went on with
            np.testing.assert_allclose(got[name], want[name], atol=1e-5, err_msg=name)
    kept = refreshed(session, 8, before.replace(bad_step=jnp.int32(21)))
    assert kept["times"] == 1
    np.testing.assert_array_equal(kept["embeddings"], before.method_state["embeddings"])


def test_without_a_momentum_encoder_it_sees_the_encoders(session):
    config = dataclasses.replace(CONFIG, method=CONFIG.method.replace(target=Shared()))
    shared = training.open_session(config)
    state = jax.device_get(shared.init_state())
    got = refreshed(shared, 8, state)["embeddings"]
    np.testing.assert_allclose(got, embeddings(shared, state.params, state.batch_stats), atol=1e-5)
