"""A method's own state, trained parameters and inputs, with methods that only tests have."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import REST, mesh
from jax.sharding import PartitionSpec as P
from tiny import cast, distance, opened, rows_of, run_steps, tiny_config

from jaxclr import losses, training
from jaxclr.affinity.collectives import gather_rows
from jaxclr.augment import Augmentation, DigitView, PhotoView
from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.methods import Method, MomentumEncoder, Predictive
from jaxclr.steps.batches import resident
from jaxclr.steps.recipe import AXIS
from jaxclr.steps.step import observe

QUEUE = 40  # not a multiple of the batch of 16: enqueueing wraps round


@dataclasses.dataclass(frozen=True)
class Queue(Method):
    """A queue of keys with a trained row of its own, which logs what it saw and drew."""

    online_views = slice(0, 1)
    target_views = slice(1, 2)

    target: MomentumEncoder = MomentumEncoder(momentum=0.9)

    def init_params(self, key, sizes):
        return {"shift": 0.1 * jax.random.normal(key, (sizes.embedding,))}

    def init_state(self, key, sizes):
        keys = jax.random.normal(key, (QUEUE, sizes.embedding))
        return {
            "keys": keys,
            "labels": jnp.full(QUEUE, -1, jnp.int32),
            "indices": jnp.full(QUEUE, -1, jnp.int32),
            "next": jnp.zeros((), jnp.int32),
            "draws": jnp.zeros(3),
        }

    def objective(self, out, state, axis_name):
        (q,), (k,) = out.embeddings, out.targets
        q = q + out.params["shift"][None] + 1e-3 * jax.random.normal(out.key, (1, q.shape[1]))
        return -jnp.mean(q * k) + jnp.mean(jnp.tanh(q @ state["keys"].T))

    def next_state(self, out, state, axis_name):
        keys, labels, indices = (
            gather_rows(rows, axis_name) for rows in (out.targets[0], out.labels, out.indices)
        )
        places = (state["next"] + jnp.arange(len(keys))) % QUEUE
        return {
            "keys": state["keys"].at[places].set(keys),
            "labels": state["labels"].at[places].set(labels),
            "indices": state["indices"].at[places].set(indices),
            "next": (state["next"] + len(keys)) % QUEUE,
            "draws": state["draws"].at[out.step].set(jax.random.uniform(out.key)),
        }


@functools.cache
def three_steps(devices, how):
    with jax.enable_x64(True):
        return run_steps(tiny_config(Queue()), devices=devices, how=how, steps=3, dtype=jnp.float64)


def test_a_queue_is_numpys():
    config = tiny_config(Queue())
    session, first = opened(config)
    _, state, _ = three_steps(1, "shard_map")
    places = np.arange(3 * 16) % QUEUE
    want_indices = np.full(QUEUE, -1)
    want_indices[places] = np.arange(3 * 16)  # rows of the first three batches, in their order
    np.testing.assert_array_equal(state.method_state["indices"], want_indices)
    labels = session.dataset.train.labels
    np.testing.assert_array_equal(state.method_state["labels"], labels[want_indices])
    assert state.method_state["next"] == 3 * 16 % QUEUE
    assert first.method_state["keys"].shape == (QUEUE, 8)


def test_the_queue_holds_the_momentum_encoders_embeddings():
    config = tiny_config(Queue())
    session, first = opened(config)
    with jax.enable_x64(True):
        look = jax.jit(functools.partial(observe, recipe=unmapped(session, config), axis_name=None))
        seen = look(cast(first, jnp.float64), rows_of(session, slice(0, 16)))
    assert len(seen.embeddings) == len(seen.targets) == 1
    keys = three_steps(1, "shard_map")[1].method_state["keys"]
    # rows of the first batch, which the third has not replaced
    np.testing.assert_allclose(keys[8:16], seen.targets[0][8:16], atol=1e-9)


@pytest.mark.parametrize(
    "devices, how",
    [
        (8, "shard_map"),
        *(pytest.param(*case, marks=pytest.mark.full) for case in ((2, "pmap"), *REST)),
    ],
)
def test_state_and_own_parameters_are_the_same_on_any_devices(devices, how):
    before, one, losses_ = three_steps(1, "shard_map")
    _, other, other_losses = three_steps(devices, how)
    np.testing.assert_allclose(other_losses, losses_, rtol=1e-9)
    assert distance(one.params, other.params) < 1e-9
    assert distance(one.method_state, other.method_state) < 1e-9
    np.testing.assert_array_equal(one.method_state["indices"], other.method_state["indices"])
    assert distance(one.params["readout"], before["readout"]) > 1e-3
    assert "readout" not in one.target_params


def test_draws_depend_on_seed_and_step_alone():
    draws = three_steps(8, "shard_map")[1].method_state["draws"]
    with jax.enable_x64(True):
        fold_in = jax.random.fold_in
        keys = [fold_in(fold_in(jax.random.key(0), t), 0xB1EC7000) for t in range(3)]
        np.testing.assert_array_equal(draws, [jax.random.uniform(key) for key in keys])
    assert len(set(draws.tolist())) == 3


class Broken(Queue):
    def objective(self, out, state, axis_name):
        return super().objective(out, state, axis_name) + jnp.inf


def test_a_bad_step_keeps_the_state():
    config = tiny_config(Broken())
    before = opened(config)[1].method_state
    _, state, _ = run_steps(config, devices=1, how="shard_map", steps=1)
    assert state.bad_step == 0
    jax.tree.map(np.testing.assert_array_equal, before, state.method_state)


def test_every_device_sees_its_rows_and_one_key():
    config = tiny_config("simclr")
    session, first = opened(config)
    state, batch = first.replace(step=jnp.int32(100)), rows_of(session, slice(32, 48))
    step = functools.partial(observe, recipe=session.recipe, axis_name=AXIS)

    def one_device(state, batch):
        out = step(state, batch)
        everyones = {name: getattr(out, name)[None] for name in ("step", "epoch", "progress")}
        return out._replace(key=jax.random.key_data(out.key)[None], **everyones)

    mapped = jax.shard_map(
        one_device, mesh=mesh(8), in_specs=(P(), P(AXIS)), out_specs=P(AXIS), check_vma=False
    )
    out = jax.jit(mapped)(state, batch)
    np.testing.assert_array_equal(out.indices, np.arange(32, 48))
    np.testing.assert_array_equal(out.labels, session.dataset.train.labels[32:48])
    assert (out.key == out.key[:1]).all()
    assert (out.step == 100).all() and (out.epoch == 100 // 89).all()  # 1437 // 16 steps an epoch
    np.testing.assert_allclose(out.progress, 100 / 178)
    assert {z.shape for z in out.representations} == {(16, 8)} and len(out.embeddings) == 2
    alone = jax.jit(functools.partial(observe, recipe=unmapped(session, config), axis_name=None))
    np.testing.assert_allclose(out.embeddings[1], alone(state, batch).embeddings[1], atol=1e-5)


def unmapped(session, config):
    """The recipe with norms that span no axis."""
    return session.recipe._replace(network=config.method.network(config.encoder, None))


@dataclasses.dataclass(frozen=True)
class Crops(Predictive):
    """Every view's prediction of the first two views' momentum embeddings."""

    more_views = True
    target_views = slice(0, 2)

    target: MomentumEncoder = MomentumEncoder(momentum=0.9)

    def objective(self, out, state, axis_name):
        assert len(out.predictions) == 4 and len(out.targets) == 2
        return sum(
            losses.negative_cosine(q, k, axis_name=axis_name)
            for i, q in enumerate(out.predictions)
            for j, k in enumerate(out.targets)
            if i != j
        )


def test_views_of_different_sizes_train():
    large, small = (PhotoView(size=size, crop_scale=(0.5, 1.0)) for size in (8, 4))
    config = tiny_config(Crops(), augmentation=Augmentation((large, large, small, small)))
    before, state, (first, *_, last) = run_steps(config, devices=8, how="shard_map", steps=4)
    assert distance(state.params, before) > 1e-3
    assert state.bad_step == -1 and np.isfinite(last) and last != first


@dataclasses.dataclass(frozen=True)
class Four(Crops):
    views = 4
    more_views = False


@pytest.mark.parametrize(
    "method, count, words",
    [
        (Crops, 1, "Crops needs at least 2 views, the augmentation makes 1"),
        (Four, 3, "Four needs 4 views, the augmentation makes 3; set --views 4"),
        (Four, 5, "Four needs 4 views"),
    ],
)
def test_other_numbers_of_views_are_refused(method, count, words):
    with pytest.raises(UserError, match=words):
        tiny_config(method(), augmentation=Augmentation((DigitView(),) * count))


@dataclasses.dataclass(frozen=True)
class Labeled(Method):
    needs_labels = True


def test_labels_that_are_not_there_are_missed(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, images=np.zeros((32, 8, 8, 1), np.uint8))
    data = Data(source=f"npz:{path}", test_fraction=0.0)
    with pytest.raises(UserError, match="Labeled learns from labels, and 'npz:.*' has none"):
        training.open_session(tiny_config(Labeled(), data=data))
    session = training.open_session(tiny_config("simclr", data=data))
    assert session.recipe.classes == 0
    whole = resident(session.dataset.train, session.mesh)
    assert (whole.labels == -1).all() and whole.labels.dtype == jnp.int32


@dataclasses.dataclass(frozen=True)
class Misshapen(Method):
    def init_state(self, key, sizes):
        return {"mean": jnp.zeros((2, sizes.embedding))}

    def objective(self, out, state, axis_name):
        return jnp.mean(out.embeddings[0])

    def next_state(self, out, state, axis_name):
        return {"mean": jnp.zeros(8)}


def test_a_state_keeps_its_shapes():
    with pytest.raises(UserError, match="method Misshapen cannot take .* shapes"):
        run_steps(tiny_config(Misshapen()), devices=1, how="shard_map", steps=1)
