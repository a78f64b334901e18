"""Views, queues, heads and draws of methods; test_oracles.py holds the values of objectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from jaxclr.errors import UserError
from jaxclr.methods import (
    Amcl,
    Cacr,
    CacrMocoV3,
    Co2,
    Dclw,
    Ft,
    Hydra,
    Mio,
    MocoV2,
    MocoV3,
    Outputs,
    Sizes,
    Trip,
    TripRoma,
)

ROWS, WIDTH = 6, 4
SIZES = Sizes(images=100, classes=3, batch=ROWS, representation=5, embedding=WIDTH)


def outputs(views=2, width=WIDTH, seed=0, **changes):
    draw = np.random.default_rng(seed).normal(size=(3, views, ROWS, width)).astype(np.float32)
    embeddings, predictions, targets = (tuple(map(jnp.asarray, views)) for views in draw)
    return Outputs(
        embeddings=embeddings,
        predictions=predictions,
        targets=targets,
        representations=embeddings,
        labels=jnp.asarray([0, 1, 2, 0, 1, 1], jnp.int32),
        indices=jnp.arange(ROWS),
        params={},
        key=jax.random.key(seed),
        step=jnp.int32(0),
        epoch=jnp.int32(0),
        progress=jnp.float32(0),
    )._replace(**changes)


def objective(method, out, state=None):
    return float(jax.jit(method.objective, static_argnums=2)(out, state, None))


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def logsumexp(values, axis):
    return np.log(np.sum(np.exp(values), axis=axis))


def one_view_each(seed=0):
    """What methods of a queue see: a query of the first view, a key of the second."""
    out = outputs(seed=seed)
    return out._replace(embeddings=out.embeddings[:1], targets=out.targets[1:])


def test_a_queue_takes_keys_after_they_were_compared():
    method = MocoV2(queue_size=2 * ROWS)
    out, state = one_view_each(), method.init_state(jax.random.key(1), SIZES)
    after = method.next_state(out, state, None)
    np.testing.assert_allclose(after.rows[:ROWS], unit(out.targets[0]), atol=1e-6)
    np.testing.assert_array_equal(after.rows[ROWS:], state.rows[ROWS:])
    q, k, queue = unit(out.embeddings[0]), unit(out.targets[0]), unit(state.rows)
    logits = np.concatenate([np.sum(q * k, 1, keepdims=True), q @ queue.T], axis=1) / 0.2
    want = np.mean(logsumexp(logits, 1) - logits[:, 0])
    np.testing.assert_allclose(objective(method, out, state), want, rtol=1e-5)


def test_cacr_of_two_views_is_half_of_moco_v3():
    out = outputs()
    whole = objective(MocoV3(temperature=0.3), out)
    half = objective(CacrMocoV3(temperature=0.3), out)
    np.testing.assert_allclose(2 * half, whole, rtol=1e-5)


def test_ft_draws_anew_in_every_step():
    method = Ft(queue_size=ROWS, temperature=0.5)
    out, state = one_view_each(), method.init_state(jax.random.key(1), SIZES)
    assert objective(method, out._replace(key=jax.random.key(9)), state) != objective(
        method, out, state
    )


def test_a_random_mapping_lasts_some_epochs():
    method = TripRoma(renew_every=10)
    state = lambda seed: method.init_state(jax.random.key(seed), SIZES)
    at = lambda epoch, seed: objective(method, outputs(epoch=jnp.int32(epoch)), state(seed))
    assert at(0, 1) == at(9, 1) != at(10, 1) == at(19, 1)
    assert at(0, 1) != at(0, 2)
    assert objective(Trip(), outputs()) != at(0, 1)


def test_every_head_has_its_share_of_the_embedding_and_weights_of_its_own():
    heads = 3
    network = Amcl(heads=heads).with_heads(hidden=5, out=WIDTH).network(tiny_config().encoder, None)
    pixels = jnp.zeros((2, 8, 8, 1))
    branch, variables = network.init_with_output(jax.random.key(0), pixels, train=False)
    assert branch.embedding.shape == (2, heads * WIDTH)
    kernels = [head["linear_0"]["kernel"] for head in variables["params"]["projector"].values()]
    assert len(kernels) == heads and not np.allclose(kernels[0], kernels[1])


@pytest.mark.parametrize(
    "kind, fields, words",
    [
        (Amcl, {"heads": 0}, "heads must be at least 1, got 0"),
        (
            Amcl,
            {"least_temperature": 2.0},
            "least_temperature must be below method.most_temperature",
        ),
        (Cacr, {"debias": 1.0}, "debias must be at least 0 and less than 1, got 1.0"),
        (Co2, {"consistency_weight": -0.1}, "consistency_weight must be at least 0, got -0.1"),
        (Dclw, {"sigma": 0.0}, "sigma must be greater than 0"),
        (Ft, {"interpolation": 0.0}, "interpolation must be greater than 0"),
        (Hydra, {"gate_hidden": 0}, "gate_hidden must be at least 1"),
        (Mio, {"temperature_negative": -1.0}, "temperature_negative must be greater than 0"),
        (TripRoma, {"renew_every": 0}, "renew_every must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, fields, words):
    with pytest.raises(UserError, match=words):
        kind(**fields)
