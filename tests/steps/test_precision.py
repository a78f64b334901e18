"""The encoder's dtype: encoder and heads in bfloat16; parameters, statistics, losses in float32."""

import functools

import jax
import jax.numpy as jnp
import pytest
from tiny import tiny_config

from jaxclr.encoders import SmallConv
from jaxclr.methods import METHODS
from jaxclr.steps.batches import Batch
from jaxclr.steps.state import image_examples, init_state
from jaxclr.steps.step import observe, train_step
from jaxclr.training.session import make_recipe

QUICK = ("sim_whitening", "hydra")


@pytest.mark.parametrize(
    "method",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in METHODS],
)
def test_what_is_in_bfloat16(method):
    config = tiny_config(method, encoder=SmallConv(widths=(4, 8), dtype="bfloat16"))
    recipe = make_recipe(config, images=1024, classes=10)
    recipe = recipe._replace(network=config.method.network(config.encoder, None))
    state = jax.eval_shape(lambda: init_state(recipe, image_examples(8, 8, 1)))
    ints = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)
    batch = Batch(jax.ShapeDtypeStruct((config.batch_size, 8, 8, 1), jnp.uint8), ints, ints)
    look, step = (
        functools.partial(jax.eval_shape, functools.partial(one, recipe=recipe, axis_name=None))
        for one in (observe, train_step)
    )
    out = look(state, batch)
    for branch in (out.representations, out.embeddings, out.predictions, out.targets):
        assert all(rows.dtype == jnp.bfloat16 for rows in branch) and branch
    after, metrics = step(state, batch)
    assert metrics["loss"].dtype == metrics["grad_norm"].dtype == jnp.float32
    floats = [leaf for leaf in jax.tree.leaves(after) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert floats and all(leaf.dtype == jnp.float32 for leaf in floats)
