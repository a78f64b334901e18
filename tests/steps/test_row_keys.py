"""Random draws of the network are functions of seed, step and row, however a batch is divided."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny import tiny_config

from jaxclr.steps.batches import Batch
from jaxclr.steps.recipe import AXIS, with_whole_batch
from jaxclr.steps.row_keys import row_key
from jaxclr.steps.state import image_examples, init_state
from jaxclr.steps.step import observe
from jaxclr.training.session import make_recipe


def test_draws_of_a_part_are_those_of_the_whole():
    """Dropout of Linen and NNX, and draws of several rows for each row of the batch."""

    def draws(first, rows):
        key = row_key(jax.random.key(0), first, rows)
        linen = nn.Dropout(0.5, deterministic=False)
        flax = nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=key))
        of_rows = (
            linen.apply({}, jnp.ones((rows, 5)), rngs={"dropout": key}),
            flax(jnp.ones((rows, 2, 3))),
            jax.random.normal(jax.random.split(key)[1], (3 * rows, 4)),
        )
        return of_rows, jax.random.uniform(key, (5,))

    whole, shared = draws(0, 8)
    parts = [draws(first, 4) for first in (0, 4)]
    for index, of_rows in enumerate(whole):
        assert len(np.unique(of_rows, axis=0)) > 4
        np.testing.assert_array_equal(of_rows, np.concatenate([part[0][index] for part in parts]))
    for _, again in parts:
        np.testing.assert_array_equal(again, shared)


class Probe(nn.Module):
    """An encoder that records the keys that it has."""

    @nn.compact
    def __call__(self, x, train):
        SEEN.append([name for name in ("dropout", "drop_path") if self.has_rng(name)])
        return nn.Dense(4)(x.reshape(len(x), -1))


SEEN = []


def test_the_momentum_encoder_keeps_its_depth():
    recipe = make_recipe(tiny_config("byol", encoder=Probe()), images=64, classes=10)
    state = jax.eval_shape(lambda: init_state(recipe, image_examples(8, 8, 1)))
    rows = jax.ShapeDtypeStruct((8,), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.uint8), rows, rows)
    run = with_whole_batch(functools.partial(observe, recipe=recipe, axis_name=AXIS))
    SEEN.clear()
    jax.eval_shape(run, state, batch)
    assert SEEN == 2 * [["dropout", "drop_path"]] + 2 * [["dropout"]]
