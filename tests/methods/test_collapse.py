"""SimTrace alone does not collapse; the plain cosine without stop-gradient does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from tiny import rows_of, tiny_config

from jaxclr.affinity import positives, unit_rows
from jaxclr.augment import AUGMENTATIONS
from jaxclr.encoders import Mlp, SmallConv
from jaxclr.evaluation import effective_rank, total_variance
from jaxclr.methods import Method, SimTracePlain
from jaxclr.steps.optimizers import Sgd
from jaxclr.steps.step import train_step
from jaxclr.steps.views import take_views
from jaxclr.training.session import open_session

STEPS, BATCH, WIDTH = 100, 64, 64


@dataclasses.dataclass(frozen=True)
class PlainCosine(Method):
    """Negative cosine of two views of a shared encoder: nothing prevents collapse."""

    def objective(self, out, state, axis_name):
        one, two = (unit_rows(z) for z in out.embeddings)
        return -jnp.mean(positives(one, two))


def variance_and_rank(method, last_norm):
    """Of the unit embeddings of 512 augmented images, norms in training mode, after training."""
    head = Mlp(layers=2, hidden=64, out=WIDTH, last_norm=last_norm)
    config = dataclasses.replace(
        tiny_config("simclr"),
        method=method(projector=head),
        encoder=SmallConv(widths=(8, 16, 32)),
        augmentation=AUGMENTATIONS["digits"],
        optimizer=Sgd(learning_rate=0.4, weight_decay=5e-4),
        batch_size=BATCH,
        epochs=STEPS,
    )
    session = open_session(config)
    recipe = session.recipe._replace(network=config.method.network(config.encoder, None))
    whole = jax.tree.map(jnp.asarray, rows_of(session, slice(None)))
    step = functools.partial(train_step, recipe=recipe, axis_name=None)

    @jax.jit
    def train(state):
        def one(state, index):
            rows = jax.random.choice(
                jax.random.fold_in(jax.random.key(1), index), len(whole.examples), (BATCH,)
            )
            return step(state, jax.tree.map(lambda leaf: leaf[rows], whole))[0], None

        return jax.lax.scan(one, state, jnp.arange(STEPS))[0]

    state = train(jax.device_put(jax.device_get(session.init_state()), jax.devices()[0]))

    @jax.jit
    def embed(state):
        rows = jnp.arange(512)
        view, _ = take_views(jnp.int32(STEPS + 1), whole.examples[:512], rows, recipe=recipe)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return recipe.network.apply(variables, view, train=True, mutable=["batch_stats"])

    branch, _ = embed(state)
    assert state.bad_step == -1
    return float(total_variance(branch.embedding)), float(effective_rank(branch.embedding))


@pytest.mark.parametrize("last_norm", [True, pytest.param(False, marks=pytest.mark.full)])
def test_sim_trace_alone_does_not_collapse(last_norm):
    variance, rank = variance_and_rank(SimTracePlain, last_norm)
    assert variance > 0.9 and rank > 10


def test_the_plain_cosine_collapses_to_a_point_without_a_last_norm():
    variance, _ = variance_and_rank(PlainCosine, last_norm=False)
    assert variance < 0.05


@pytest.mark.full
def test_the_plain_cosine_collapses_to_a_line_with_a_last_norm():
    _, rank = variance_and_rank(PlainCosine, last_norm=True)
    assert rank < 5
