"""A whole training step that compiles in seconds: digits, a small network, narrow heads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.augment import Augmentation, DigitView, with_views
from jaxclr.data import Data, load
from jaxclr.encoders import SmallConv, ViT
from jaxclr.methods import METHODS, Ibot, Method
from jaxclr.runs.config import Config
from jaxclr.steps.batches import Batch
from jaxclr.steps.optimizers import Sgd
from jaxclr.steps.recipe import AXIS
from jaxclr.steps.step import map_step, train_step
from jaxclr.training.session import open_session

BATCH = 16
QUICK = ("byol", "sim_affinity", "sim_whitening")
VIT = ViT(width=8, depth=1, heads=2, patch=2)
# Noise alone: the draws of a warp and of a rectangle take as long to compile as all the rest.
LIGHT = DigitView(rotation=0.0, scale=(1.0, 1.0), shift=0.0, erase=0.0, noise=0.3)

# What methods size for ImageNet, by the name of the field.
TINY = {
    "clusters": (4, 6),
    "freeze_prototypes": 1,
    "negatives": 3,
    "prototypes": 5,
    "queue_from": 0,
    "queue_size": 2 * BATCH,
    "slices": 8,
    "warmup_epochs": 0,
    "whitening_size": BATCH,
}


def carries(kind):
    """Whether a method has parameters or a state of its own.

    Without them its objective is its loss, which the tests of losses hold on eight devices.
    """
    return kind.init_state is not Method.init_state or kind.init_params is not Method.init_params


def tiny_config(method="sim_affinity", **changes):
    chosen = METHODS[method]() if isinstance(method, str) else method
    chosen = chosen.replace(**{name: size for name, size in TINY.items() if hasattr(chosen, name)})
    config = Config(
        method=chosen.with_heads(hidden=12, out=8),
        encoder=VIT if isinstance(chosen, Ibot) else SmallConv(widths=(4, 8)),
        data=Data("digits", mean=(0.3,), std=(0.4,)),
        augmentation=with_views(Augmentation((LIGHT, LIGHT)), chosen.views),
        optimizer=Sgd(learning_rate=0.5),
        epochs=2,
        batch_size=BATCH,
        warmup_epochs=0.0,
        observe_every=0,
    )
    return dataclasses.replace(config, **changes)


def unlabeled(folder):
    """64 digits in a file without labels: runs on them end without an evaluation."""
    images = load(Data("digits")).train.examples[:64]
    np.savez(folder / "digits.npz", images=images)
    return Data(f"npz:{folder}/digits.npz", mean=(0.3,), std=(0.4,), test_fraction=0.0)


def cast(tree, dtype):
    """The tree with its floats in another type, in buffers of its own."""
    is_float = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.tree.map(lambda leaf: jnp.array(leaf, dtype if is_float(leaf) else leaf.dtype), tree)


@functools.cache
def opened(config):
    """The session of a configuration and its first state, on the host in float32."""
    with jax.enable_x64(False):
        session = open_session(config)
        return session, jax.device_get(session.init_state())


def rows_of(session, rows):
    """A batch of these rows of the training split, on the host."""
    split = session.dataset.train
    places = np.arange(len(split.examples), dtype=np.int32)
    return Batch(split.examples[rows], places[rows], split.labels[rows])


def run_steps(config, *, devices, how, steps, dtype=jnp.float32):
    """Parameters before, the state after and the losses of a few steps on so many devices."""
    session, first = opened(config)
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((devices,), (AXIS,), axis_types=kinds, devices=jax.devices()[:devices])
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    one_device = lambda state, batch: train_step(
        state, batch, recipe=session.recipe, axis_name=AXIS
    )
    step = map_step(one_device, mesh, how)
    state = jax.device_put(cast(first, dtype), everywhere)
    before = jax.device_get(state.params)
    losses = []
    for index in range(steps):
        rows = slice(index * config.batch_size, (index + 1) * config.batch_size)
        batch = jax.device_put(rows_of(session, rows), by_rows)
        state, metrics = jax.block_until_ready(step(state, batch))
        losses.append(metrics["loss"].item())
    return before, jax.device_get(state), np.array(losses)


def distance(one, other):
    """Euclidean distance of two trees."""
    squares = jax.tree.map(lambda a, b: np.sum((np.asarray(a, np.float64) - b) ** 2), one, other)
    return np.sqrt(sum(jax.tree.leaves(squares)))
