"""Objectives and next states are those of the global batch on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import mesh
from jax.sharding import PartitionSpec as P
from tiny import BATCH, QUICK, carries, cast, tiny_config

from jaxclr.methods import METHODS, Ibot, MomentumEncoder, Outputs, Shared, Sizes

IMAGES, CLASSES, FEATURES = 64, 4, 10


def outputs(method, width):
    """Random outputs of a step on the global batch; those with a gradient first."""
    generator = np.random.default_rng(0)
    rows = lambda size: jnp.asarray(generator.normal(size=(BATCH, size)))
    views = range(method.views)
    online, seen = len(views[method.online_views]), len(views[method.target_views])
    embeddings = tuple(rows(width) for _ in range(online))
    trained = {"embeddings": embeddings}
    if method.predictor is not None:
        trained["predictions"] = tuple(rows(width) for _ in range(online))
    patches = lambda: tuple(jnp.stack([rows(width)] * 3, 1) + rows(1)[..., None] for _ in range(2))
    if isinstance(method, Ibot):
        trained["patches"] = patches()
    momentum = isinstance(method.target, MomentumEncoder)
    rest = {
        "targets": tuple(rows(width) for _ in range(seen)) if momentum else (),
        "representations": tuple(rows(FEATURES) for _ in range(online)),
        "labels": jnp.asarray(generator.integers(0, CLASSES, BATCH), jnp.int32),
        "indices": jnp.asarray(generator.permutation(IMAGES)[:BATCH], jnp.int32),
    }
    if isinstance(method, Ibot):
        masks = tuple(jnp.asarray(generator.random((BATCH, 3)) < 0.4) for _ in range(2))
        rest |= {"target_patches": patches(), "masks": masks}
    return trained, rest


def observed(method, trained, rest):
    targets = rest["targets"] or trained["embeddings"]
    if not isinstance(method.target, Shared):
        targets = jax.lax.stop_gradient(targets)
    facts = {
        "key": jax.random.key(5),
        "step": jnp.int32(40),
        "epoch": jnp.int32(10),
        "progress": jnp.asarray(0.5),
    }
    predictions = trained.get("predictions", trained["embeddings"])
    return Outputs(**{**rest, **trained, **facts, "predictions": predictions, "targets": targets})


def evaluate(method, state, trained, rest, axis_name):
    """Share of the loss, gradients at what is trained, and the next state."""
    share = lambda trained: method.objective(observed(method, trained, rest), state, axis_name)
    value, gradients = jax.value_and_grad(share)(trained)
    following = method.next_state(observed(method, trained, rest), state, axis_name)
    return value, gradients, following


# The whole steps of QUICK are held on eight devices by tests/steps/test_devices.py.
CASES = [
    name if carries(kind) else pytest.param(name, marks=pytest.mark.full)
    for name, kind in METHODS.items()
    if name not in QUICK
]


@pytest.mark.parametrize("name", CASES)
def test_eight_devices_are_one(name):
    method = tiny_config(name).method
    with jax.enable_x64(True):
        width = method.projector.out * getattr(method, "heads", 1)
        sizes = Sizes(
            images=IMAGES, classes=CLASSES, batch=BATCH, representation=FEATURES, embedding=width
        )
        own, first = jax.random.split(jax.random.key(0))
        trained, rest = outputs(method, width)
        trained["params"] = cast(method.init_params(own, sizes), jnp.float64)
        state = cast(method.init_state(first, sizes), jnp.float64)
        alone = jax.jit(lambda *a: evaluate(method, *a, None))(state, trained, rest)

        def on_each(state, trained, rest):
            value, gradients, following = evaluate(method, state, trained, rest, "batch")
            gradients = {"params": jax.lax.pmean(gradients.pop("params"), "batch")}, gradients
            return jax.lax.pmean(value, "batch"), gradients, following

        by_rows = {name: P() if name == "params" else P("batch") for name in trained}
        spread = jax.shard_map(
            on_each,
            mesh=mesh(8),
            in_specs=(P(), by_rows, P("batch")),
            out_specs=(P(), (P(), P("batch")), P()),
            check_vma=False,
        )
        value, (params, rows), following = jax.jit(spread)(state, trained, rest)
    gradients = {**params, **jax.tree.map(lambda g: np.asarray(g) / 8, rows)}
    near = lambda one, other: np.testing.assert_allclose(other, one, rtol=1e-7, atol=1e-9)
    jax.tree.map(near, alone, (value, gradients, following))
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(alone[1]))
