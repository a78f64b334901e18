"""Micro-batches: loss and gradient are those of the whole batch, memory is that of a part."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LIGHT, distance, run_steps, tiny_config

from jaxclr.augment import AUGMENTATIONS, Augmentation
from jaxclr.data import Data
from jaxclr.encoders import Mlp, ResNet, SmallConv
from jaxclr.encoders.layers import batch_norm
from jaxclr.errors import UserError
from jaxclr.methods import METHODS, MocoV3
from jaxclr.steps.batches import Batch
from jaxclr.steps.micro_batches import in_micro_batches
from jaxclr.steps.state import image_examples, init_state
from jaxclr.steps.step import train_step
from jaxclr.training.session import make_recipe, open_session


@dataclasses.dataclass(frozen=True)
class Plain:
    """An encoder without BatchNorm: no row sees another."""

    dtype: str = "float32"

    def build(self, axis_name):
        return PlainModule()


class PlainModule(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return jnp.tanh(nn.Dense(8)(images.reshape(len(images), -1)))


@dataclasses.dataclass(frozen=True)
class Everything(MocoV3):
    """Momentum encoder, predictor, a parameter of its own, and gradient through representations."""

    def init_params(self, key, sizes):
        return {"weight": jnp.asarray(0.5, jnp.float32)}

    def objective(self, out, state, axis_name):
        contrast = super().objective(out, state, axis_name)
        (weight,) = out.params.values()
        return jnp.exp(-weight) * contrast + jnp.mean(out.representations[0] ** 4) - weight


def without_batch_norm(method, **changes):
    views = Augmentation((LIGHT,) * method.views)
    config = tiny_config(method, encoder=Plain(), augmentation=views, **changes)
    heads = ("projector",) if config.method.predictor is None else ("projector", "predictor")
    linear = dict.fromkeys(heads, Mlp(layers=1, out=8))
    return dataclasses.replace(config, method=config.method.replace(**linear))


# On one device 1,024 images of digits as 16 micro-batches of 64.
CASES = (
    (METHODS["simclr"](), 1024, 16, 1),
    (Everything(), 32, 2, 8),
    pytest.param(METHODS["hydra"](), 32, 2, 8, marks=pytest.mark.full),
    pytest.param(METHODS["byol"](), 64, 4, 8, marks=pytest.mark.full),
    pytest.param(METHODS["swav"](), 64, 4, 1, marks=pytest.mark.full),
)


@pytest.mark.parametrize("method, batch, micro_batches, devices", CASES)
def test_equals_the_undivided_step(method, batch, micro_batches, devices):
    config = without_batch_norm(method, batch_size=batch)
    steps = 1437 // batch if batch > 100 else 2
    with jax.enable_x64(True):
        run = functools.partial(run_steps, how="shard_map", steps=steps, dtype=jnp.float64)
        before, whole, losses = run(config, devices=1)
        in_parts = dataclasses.replace(config, micro_batches=micro_batches)
        _, state, losses_in_parts = run(in_parts, devices=devices)
    for name in before:
        assert distance(whole.params[name], before[name]) > 1e-4, name
    np.testing.assert_allclose(losses_in_parts, losses, rtol=1e-9)
    for part in ("params", "target_params", "opt_state", "method_state"):
        assert distance(getattr(state, part), getattr(whole, part)) < 1e-8, part


def test_statistics_are_each_micro_batchs_own_and_move_in_their_order():
    rows = np.random.default_rng(0).normal(size=(12, 3)) * np.linspace(1, 3, 12)[:, None]
    norm = batch_norm("float32", None, True)

    def embed(stats, part):
        out, updates = norm.apply({"batch_stats": stats}, part, mutable=["batch_stats"])
        return updates["batch_stats"], out

    norm = norm.clone(use_scale=False, use_bias=False)
    with jax.enable_x64(True):
        stats = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
        stats, out = in_micro_batches(embed, stats, jnp.asarray(rows), count=3)
    mean, var = np.zeros(3), np.ones(3)
    for part, got in zip(np.split(rows, 3), np.split(np.asarray(out), 3), strict=True):
        np.testing.assert_allclose(
            got, (part - part.mean(0)) / np.sqrt(part.var(0) + 1e-5), rtol=1e-6
        )
        mean, var = 0.9 * mean + 0.1 * part.mean(0), 0.9 * var + 0.1 * part.var(0)
    np.testing.assert_allclose(stats["mean"], mean, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], var, rtol=1e-6)


def temporaries(encoder, view, rows, micro_batches):
    """Bytes of a step on images of 32 x 32 x 3 besides its arguments, from the compiler."""
    config = tiny_config(
        "simclr",
        encoder=encoder,
        data=Data("digits", mean=(0.5,) * 3, std=(0.2,) * 3),
        augmentation=Augmentation((view, view)),
        batch_size=rows,
        micro_batches=micro_batches,
    )
    recipe = make_recipe(config, images=1024, classes=10)
    recipe = recipe._replace(network=config.method.network(encoder, None))
    state = jax.eval_shape(lambda: init_state(recipe, image_examples(32, 32, 3)))
    ints = jax.ShapeDtypeStruct((rows,), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((rows, 32, 32, 3), jnp.uint8), ints, ints)
    step = jax.jit(functools.partial(train_step, recipe=recipe, axis_name=None))
    return step.lower(state, batch).compile().memory_analysis().temp_size_in_bytes


PHOTO = AUGMENTATIONS["cifar"].views[0]
ENCODERS = (
    (SmallConv(widths=(8, 16)), LIGHT, 32),
    pytest.param(SmallConv(widths=(16, 32)), PHOTO, 32, marks=pytest.mark.full),
    pytest.param(ResNet(), PHOTO, 16, marks=pytest.mark.full),
)


@pytest.mark.parametrize("encoder, view, rows", ENCODERS)
def test_memory_is_a_micro_batchs(encoder, view, rows):
    one = temporaries(encoder, view, rows, 1)
    assert temporaries(encoder, view, 8 * rows, 8) < 1.15 * one


def test_what_cannot_be_divided_is_refused():
    config = tiny_config(batch_size=48, micro_batches=4)
    with pytest.raises(
        UserError, match="48 cannot .* over 8 devices of 4 micro-batches each; set a multiple of 32"
    ):
        open_session(config)
    with pytest.raises(UserError, match="micro_batches must be at least 1, got 0"):
        dataclasses.replace(config, micro_batches=0)
