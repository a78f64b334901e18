"""A state that is spread over the devices: the same numbers, an eighth of the memory."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import map_rows, mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import cast, distance, rows_of

from jaxclr import training
from jaxclr.affinity import collectives
from jaxclr.augment import Augmentation
from jaxclr.data import Arrays
from jaxclr.errors import UserError
from jaxclr.methods import MocoV3
from jaxclr.runs.checkpoints import Checkpoints, read_variables
from jaxclr.runs.digests import digests
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.batches import resident
from jaxclr.steps.optimizers import AdamW, Lars, Sgd
from jaxclr.steps.sharding import split
from jaxclr.training.loop import compile_step

BATCH, STEPS = 16, 20
OPTIMIZERS = {"sgd": Sgd(0.5), "lars": Lars(2.0, trust=0.1), "adamw": AdamW(0.05)}


def noisy(keys, rows):
    return rows + 0.1 * jax.vmap(lambda key: jax.random.normal(key, rows.shape[1:]))(keys)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Dense(64)(x))


# Twelve: the first dimension of a kernel is not a multiple of the devices.
ROWS = np.random.default_rng(0).normal(size=(STEPS * BATCH, 12)).astype(np.float32)
CONFIG = training.Config(
    method=MocoV3().with_heads(hidden=64, out=16),
    encoder=Encoder(),
    data=Arrays(ROWS, np.arange(len(ROWS)) % 2),
    augmentation=Augmentation((noisy, noisy)),
    epochs=2,
    batch_size=BATCH,
    warmup_epochs=0.0,
)


@functools.cache
def session(optimizer="sgd", sharding="replicated", devices=8):
    config = dataclasses.replace(
        CONFIG, optimizer=OPTIMIZERS[optimizer], state_sharding=sharding, clip_norm=1.0
    )
    return training.open_session(config)._replace(mesh=mesh(devices))


def trained(session, *, scanned=False):
    """State after twenty steps in float64, their metrics, and the memory of the arguments."""
    with jax.enable_x64(True):
        state = jax.jit(lambda state: cast(state, jnp.float64))(session.init_state())
        if scanned:
            step = training.compile_steps(session.recipe, session.mesh)
            rows = np.arange(STEPS * BATCH, dtype=np.int32).reshape(STEPS, BATCH)
            rows = jax.device_put(rows, NamedSharding(session.mesh, P(None, "batch")))
            state, metrics = step(state, resident(session.dataset.train, session.mesh), rows)
            return state, jax.device_get(metrics), None
        place = NamedSharding(session.mesh, P("batch"))
        take = lambda i: jax.device_put(rows_of_step(session, i), place)
        step = compile_step(session).lower(state, take(0)).compile()
        found = []
        for index in range(STEPS):
            state, metrics = jax.block_until_ready(step(state, take(index)))
            found.append(jax.device_get(metrics))
        metrics = jax.tree.map(lambda *each: np.stack(each), *found)
        return state, metrics, step.memory_analysis().argument_size_in_bytes


def rows_of_step(session, index):
    return rows_of(session, slice(index * BATCH, (index + 1) * BATCH))


def size(tree):
    """Bytes of the arrays of a tree; numbers are on every device."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree) if leaf.ndim)


@functools.cache
def replicated(optimizer):
    return trained(session(optimizer))


@pytest.mark.parametrize(
    "optimizer, sharding, scanned",
    [
        ("lars", "optimizer", False),
        ("adamw", "all", False),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in (
                ("sgd", "all", False),
                ("sgd", "optimizer", True),
                ("lars", "all", False),
                ("adamw", "optimizer", False),
                ("adamw", "all", True),
            )
        ),
    ],
)
def test_the_numbers_are_those_of_a_replicated_state(optimizer, sharding, scanned):
    state, metrics, memory = trained(session(optimizer, sharding), scanned=scanned)
    wanted, wanted_metrics, whole = replicated(optimizer)
    assert distance(wanted.params, session(optimizer).init_state().params) > 1e-2
    for name in ("loss", "grad_norm"):  # the norm before it is clipped
        np.testing.assert_allclose(metrics[name], wanted_metrics[name], rtol=1e-9)
    for part in ("params", "batch_stats", "target_params", "target_batch_stats", "opt_state"):
        one, other = (jax.device_get(getattr(of, part)) for of in (state, wanted))
        assert distance(one, other) < 1e-9, part
    parts = (state.opt_state, state.target_params, *([state.params] if sharding == "all" else []))
    for leaf in jax.tree.leaves(parts):
        assert not leaf.ndim or leaf.addressable_data(0).size == leaf.size / 8
    if not scanned:
        assert whole - memory == size(parts) * 7 / 8


@pytest.mark.parametrize("devices, sharding", [(2, "all"), (1, "replicated"), (8, "optimizer")])
def test_a_checkpoint_of_eight_devices_is_read_on_others(devices, sharding, saved, tmp_path):
    folder, before = saved
    other = session("adamw", sharding, devices)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore(other.state_shape(), say=pytest.fail)
    assert digests(state) == before
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    assert shardings == other.shardings()
    # And back: written by these, read by eight.
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1)
        checkpoints.wait()
        eight = session("adamw", "all")
        assert digests(checkpoints.restore(eight.state_shape(), say=pytest.fail)) == before


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a run whose checkpoint was written by eight devices, and its digests."""
    folder = tmp_path_factory.mktemp("sharded")
    state = session("adamw", "all").init_state()
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(state, 1)
    assert digests(state) == digests(jax.device_get(state))
    _, variables = read_variables(RunFolder(folder), ("encoder", "projector"))
    for part, tree in variables["params"].items():
        jax.tree.map(np.testing.assert_array_equal, tree, jax.device_get(state.params[part]))
    return folder, digests(state)


def test_arrays_are_split_along_the_first_dimension_that_divides():
    shapes = {"a": (3, 16), "b": (8, 16), "c": (5,), "d": (), "e": (0, 8)}
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    found = split(tree, 8, "batch")
    assert found["a"] == found["e"] == P(None, "batch")
    assert (found["b"], found["c"], found["d"]) == (P("batch"), P(), P())
    assert set(split(tree, 1, "batch").values()) == {P()}


def test_pmap_is_refused():
    with pytest.raises(UserError, match="needs --mapper shard_map: pmap keeps a copy"):
        dataclasses.replace(CONFIG, mapper="pmap", state_sharding="optimizer")


def test_stages_gather_and_scatter_as_at_once(monkeypatch):
    rows = np.arange(16 * 24, dtype=np.float32).reshape(16, 24)

    def both(rows):
        def loss(rows):
            seen = collectives.gather_rows(rows, "batch")
            weights = jnp.arange(seen.size, dtype=jnp.float32).reshape(seen.shape)
            return jnp.sum(weights * seen) * (1 + jax.lax.axis_index("batch")), seen

        gradient, seen = jax.grad(loss, has_aux=True)(rows)
        total = collectives.scatter_sum(seen * (1 + jax.lax.axis_index("batch")), "batch")
        return gradient, seen[None], total, collectives.scatter_sum(rows, "batch", 1)

    at_once = map_rows(both, 8, "shard_map")(rows)
    np.testing.assert_array_equal(at_once[1][5], rows)
    monkeypatch.setattr(collectives, "STAGE", 2)
    monkeypatch.setattr(collectives, "AT_ONCE", 2)
    for how in ("shard_map", "pmap"):
        for one, other in zip(map_rows(both, 8, how)(rows), at_once, strict=True):
            np.testing.assert_array_equal(one, other)
