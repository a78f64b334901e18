"""Runs that start from the weights of others: what is taken, and the steps after it by hand."""

import functools
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import tiny_config

import jaxclr
from jaxclr import api, losses
from jaxclr.encoders import Mlp, ResNet, SmallConv, ViT
from jaxclr.encoders.conv import halve, neighborhoods
from jaxclr.errors import UserError
from jaxclr.interop import importing, initial
from jaxclr.interop.names import to_torch
from jaxclr.interop.positions import resize_positions
from jaxclr.interop.weights import write_safetensors
from jaxclr.methods import SimClr
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.batches import batch_rows
from jaxclr.steps.optimizers import Sgd
from jaxclr.steps.views import take_views
from jaxclr.training.loop import train
from jaxclr.training.session import open_session

METHOD = SimClr(projector=Mlp(layers=1, out=8))


def randomized(tree, seed):
    generator = np.random.default_rng(seed)
    draw = lambda leaf: jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
    return jax.tree.map(draw, tree)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run at step 7 with random variables, statistics included."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "source")
    session = open_session(tiny_config(METHOD))
    state = session.init_state()
    state = state.replace(
        params=randomized(state.params, 1), batch_stats=randomized(state.batch_stats, 2)
    )
    run.create(session.config, overwrite=False)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(state, 7)
    return run.folder, jax.device_get(state)


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


FREEZE = ("encoder/conv_0", "encoder/norm_0")


def by_hand(params, stats, session, steps):
    """SGD with momentum and decay; the first layer and its norm are constants."""
    x64 = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)
    params, stats = x64(params), x64(stats["encoder"])
    first, stats = stats["norm_0"], stats["norm_1"]
    frozen = {name: params["encoder"].pop(name) for name in ("conv_0", "norm_0")}
    images = jnp.asarray(session.dataset.train.examples)

    def norm(x, mean, var, scale, bias):
        row = lambda leaf: leaf[None, None, None]
        return (x - row(mean)) / jnp.sqrt(row(var) + 1e-5) * row(scale) + row(bias)

    def embed(params, stats, x):
        x = neighborhoods(x) @ frozen["conv_0"]["kernel"]
        x = halve(jax.nn.relu(norm(x, first["mean"], first["var"], **frozen["norm_0"])))
        x = neighborhoods(x) @ params["encoder"]["conv_1"]["kernel"]
        mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        stats = {"mean": 0.9 * stats["mean"] + 0.1 * mean, "var": 0.9 * stats["var"] + 0.1 * var}
        x = jax.nn.relu(norm(x, mean, var, **params["encoder"]["norm_1"]))
        return jnp.mean(x, (1, 2)) @ params["projector"]["linear_0"]["kernel"], stats

    def loss(params, stats, views):
        z1, stats = embed(params, stats, views[0])
        z2, stats = embed(params, stats, views[1])
        return losses.nt_xent(z1, z2, temperature=METHOD.temperature), stats

    look = jax.jit(functools.partial(take_views, recipe=session.recipe))
    differentiate = jax.jit(jax.grad(loss, has_aux=True))
    memory = jax.tree.map(jnp.zeros_like, params)
    for step in range(steps):
        rows = batch_rows(len(images), batch_size=16, seed=0, step=step)
        views = look(jnp.int32(step), images[rows], jnp.arange(16))
        gradient, stats = differentiate(params, stats, views)
        decayed = jax.tree.map(lambda g, p: g + 0.01 * p * (p.ndim > 1), gradient, params)
        memory = jax.tree.map(lambda m, g: 0.9 * m + g, memory, decayed)
        rate = 0.5 * 16 / 256 * (1 + np.cos(np.pi * step / session.steps)) / 2
        params = jax.tree.map(lambda p, m, rate=rate: p - rate * m, params, memory)
    return params, stats


def test_frozen_steps_from_weights_are_those_by_hand(source, tmp_path):
    folder, before = source
    config = tiny_config(METHOD, freeze=FREEZE, optimizer=Sgd(0.5, weight_decay=0.01))
    run, console = RunFolder(tmp_path / "run"), rich.console.Console(file=io.StringIO())
    with jax.enable_x64(True):
        session = open_session(config)
        start = initial.start_from(session, folder, heads=True)
        run.create(session.config, overwrite=False, init=start.record)
        initial.begin(session, run, start, console.print)
        state = jax.device_get(train(session, run, console=console, stop_after=2))
        params, stats = jax.device_get(by_hand(before.params, before.batch_stats, session, 2))
    assert state.step == 2 and state.params["projector"]["linear_0"]["kernel"].dtype == np.float64
    for name in ("conv_0", "norm_0"):
        assert_equal(state.params["encoder"].pop(name), before.params["encoder"][name])
    assert_equal(
        state.batch_stats["encoder"].pop("norm_0"), before.batch_stats["encoder"]["norm_0"]
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, state.params, params)
    jax.tree.map(close, state.batch_stats["encoder"]["norm_1"], stats)


def test_an_encoder_alone_is_taken_and_said(source):
    folder, before = source
    session = open_session(tiny_config("moco_v3"))
    start = initial.start_from(session, folder)
    assert_equal(start.state.params["encoder"], before.params["encoder"])
    assert_equal(start.state.target_params["encoder"], before.params["encoder"])
    assert_equal(start.state.target_batch_stats["encoder"], before.batch_stats["encoder"])
    assert_equal(start.state.params["projector"], session.init_state().params["projector"])
    assert start.note == (
        f"Weights of {folder}, step 7: taken are encoder (10 of 10 variables). "
        "Initialized: predictor, projector."
    )
    assert start.record["path"] == str(folder) and start.record["step"] == 7
    assert "params/encoder/conv_0/kernel" in start.record["taken"]
    assert "params/projector/linear_0/kernel" in start.record["left"]


def test_what_does_not_fit_is_left_and_said(source):
    folder, before = source
    session = open_session(tiny_config("simclr", encoder=SmallConv(widths=(4, 6))))
    start = initial.start_from(session, folder, heads=True)
    assert_equal(start.state.params["encoder"]["conv_0"], before.params["encoder"]["conv_0"])
    assert "encoder (5 of 10 variables)" in start.note
    assert "encoder/conv_1/kernel ([36, 8] there, [36, 6] here)" in start.note
    assert "projector" in start.note.partition("Initialized")[2]  # as a whole, or not at all
    with pytest.raises(UserError, match="has no variable of this encoder, such as encoder/conv_0"):
        initial.start_from(open_session(tiny_config("simclr", encoder=SmallConv((5,)))), folder)
    with pytest.raises(UserError, match="is not a run"):
        initial.start_from(session, folder.parent)


def test_encoders_of_single_views_start_from_one(source):
    folder, before = source
    tower = SmallConv(widths=(4, 8))
    state = initial.start_from(
        open_session(tiny_config(METHOD, encoder=(tower, tower))), folder
    ).state
    for part in state.params["encoder"].values():
        assert_equal(part, before.params["encoder"])


@pytest.mark.parametrize("spec", [ResNet(18), ViT(positions="learned")])
def test_a_file_has_the_names_of_the_encoder(spec, tmp_path):
    like = importing._like(spec, 64, 3)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 2.0, leaf.dtype), like)
    write_safetensors(tmp_path / "weights.safetensors", to_torch(spec, variables), {})
    context = type("", (), {"config": tiny_config("simclr", encoder=spec)})
    step, found = initial._read(context, tmp_path / "weights.safetensors", False)
    wanted = initial._flat({kind: {"encoder": tree} for kind, tree in like.items()})
    assert step is None and set(found) == set(wanted)
    assert all(found[name].shape == leaf.shape for name, leaf in wanted.items())


def test_positions_are_interpolated():
    rows = np.arange(8.0)[:, None, None] * np.ones((8, 8, 3))
    positions = np.concatenate([np.full((1, 1, 3), 9.0), rows.reshape(1, -1, 3)], axis=1)
    resized = resize_positions(positions, 1 + 16 * 16)
    assert resized.shape == (1, 257, 3) and (resized[:, 0] == 9).all()
    grid = resized[0, 1:].reshape(16, 16, 3)
    np.testing.assert_allclose(
        grid[4:12],
        np.broadcast_to(((np.arange(4, 12) + 0.5) / 2 - 0.5)[:, None, None], (8, 16, 3)),
        atol=1e-5,
    )
    assert resize_positions(positions, 65) is positions
    assert resize_positions(positions, 51) is positions  # not a square


def test_a_run_says_what_it_started_from(source, tmp_path, monkeypatch):
    folder, before = source
    monkeypatch.setattr(api, "pretrain", lambda *_, **__: None)
    config, text = tiny_config(METHOD), io.StringIO()
    console = rich.console.Console(file=text, width=1000)
    trained = functools.partial(jaxclr.train, config, tmp_path / "run", console=console)
    run = trained(init=folder)
    assert run.load().step == 0
    assert_equal(run.load().variables["params"], before.params["encoder"])
    record = json.loads((run.folder / "init.json").read_text())
    assert record["path"] == str(folder) and len(record["digest"]) == 8
    trained(init=folder)
    run.resume(console=console)
    assert text.getvalue().count("taken are encoder (10 of 10 variables)") == 1
    with pytest.raises(UserError, match=r"started from .* \(without heads\), not no weights"):
        trained()
    with pytest.raises(UserError, match=r"not .* \(with heads\)"):
        trained(init=folder, init_heads=True)
    trained(overwrite=True)
    assert not (run.folder / "init.json").exists()
    with pytest.raises(UserError, match="started from no weights"):
        trained(init=folder)


def test_changed_weights_are_refused(source, tmp_path):
    folder = shutil.copytree(source[0], tmp_path / "source")
    session, run = open_session(tiny_config(METHOD)), RunFolder(tmp_path / "run")
    start = initial.start_from(session, folder)
    run.create(session.config, overwrite=False, init=start.record)
    shutil.rmtree(folder)
    shutil.copytree(source[0], folder)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(session.init_state(), 9)
    with pytest.raises(UserError, match="was changed since"):
        initial.begin(session, run, None, print)
    assert not (run.checkpoints / "0").exists()
