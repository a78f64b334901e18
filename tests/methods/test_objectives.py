"""What methods make of the network's outputs: views, heads, partners and draws; against NumPy or against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from jaxclr import losses
from jaxclr.errors import UserError
from jaxclr.methods import (
    AlignUniform,
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


def test_co2_adds_the_divergence_of_two_looks_at_the_queue():
    plain, weighed = MocoV2(queue_size=ROWS), Co2(queue_size=ROWS, consistency_weight=0.7)
    out, state = one_view_each(), plain.init_state(jax.random.key(1), SIZES)
    looks = [unit(rows) @ unit(state.rows).T / 0.05 for rows in (out.embeddings[0], out.targets[0])]
    q, k = (look - logsumexp(look, 1)[:, None] for look in looks)
    divergence = np.mean(np.sum((np.exp(k) - np.exp(q)) * (k - q), axis=1)) / 2
    want = objective(plain, out, state) + 0.7 * divergence
    np.testing.assert_allclose(objective(weighed, out, state), want, rtol=1e-4)


def test_ft_draws_once_a_step_how_far_positives_move_and_how_negatives_mix():
    method = Ft(queue_size=ROWS, temperature=0.5)
    out, state = one_view_each(), method.init_state(jax.random.key(1), SIZES)
    keys = jax.random.split(out.key, 3)
    apart, mixed = (float(jax.random.beta(key, both, both)) for key, both in zip(keys, (2.0, 1.6)))
    order = np.asarray(jax.random.permutation(keys[2], ROWS))
    q, k, queue = unit(out.embeddings[0]), unit(out.targets[0]), unit(state.rows)
    q, k = q + apart * (q - k), k + apart * (k - q)
    queue = mixed * queue + (1 - mixed) * queue[order]
    logits = np.concatenate([np.sum(q * k, 1, keepdims=True), q @ queue.T], axis=1) / 0.5
    want = np.mean(logsumexp(logits, 1) - logits[:, 0])
    np.testing.assert_allclose(objective(method, out, state), want, rtol=1e-5)
    assert objective(method, out._replace(key=keys[0]), state) != objective(method, out, state)


def test_cacr_of_two_views_is_half_of_moco_v3():
    out = outputs()
    whole = objective(MocoV3(temperature=0.3), out)
    half = objective(CacrMocoV3(temperature=0.3), out)
    np.testing.assert_allclose(2 * half, whole, rtol=1e-5)


def test_small_views_are_queries_of_both_keys():
    out = outputs(views=4)
    out = out._replace(targets=out.targets[:2])
    q0, q1, *small = out.predictions
    k0, k1 = out.targets
    rbf = lambda *pair: losses.cacr_rbf(*pair, temperature=1.0)
    want = (rbf([q1, *small], k0) + rbf([q0, *small], k1)) / 2
    np.testing.assert_allclose(objective(CacrMocoV3(), out), want, rtol=1e-6)


def test_dclw_goes_both_ways():
    out = outputs()
    there, back = (out._replace(embeddings=z) for z in (out.embeddings, out.embeddings[::-1]))
    one, other = (objective(Dclw(), each) for each in (there, back))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_alignment_and_uniformity_are_weighed():
    out = outputs()
    z1, z2 = map(unit, out.embeddings)
    pairs = np.triu_indices(ROWS, 1)
    potential = lambda z: np.log(np.mean(np.exp(-2 * np.sum((z[:, None] - z) ** 2, 2))[pairs]))
    want = 3 * np.mean(np.sum((z1 - z2) ** 2, 1)) + 0.7 * (potential(z1) + potential(z2)) / 2
    method = AlignUniform(alignment=3.0, uniformity=0.7)
    np.testing.assert_allclose(objective(method, out), want, rtol=1e-5)


def test_a_random_mapping_lasts_some_epochs():
    method = TripRoma(renew_every=10)
    state = lambda seed: method.init_state(jax.random.key(seed), SIZES)
    at = lambda epoch, seed: objective(method, outputs(epoch=jnp.int32(epoch)), state(seed))
    assert at(0, 1) == at(9, 1) != at(10, 1) == at(19, 1)
    assert at(0, 1) != at(0, 2)
    assert objective(Trip(), outputs()) != at(0, 1)


def test_hydra_is_numpys():
    method = Hydra(gate_embedding=5, gate_hidden=7, temperature=0.3)
    out = outputs(views=1, params=method.init_params(jax.random.key(1), SIZES))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), out.params)
    labels = np.asarray(out.labels)
    partners = labels[np.asarray(jax.random.permutation(out.key, ROWS))]

    def norm(x):
        x = np.maximum(x, 0)
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    layers = [params[name] for name in ("hidden", "out")]
    x = (params["classes"]["embedding"][labels] + params["classes"]["embedding"][partners]) / 2
    for layer in layers:
        x = norm(x) @ layer["kernel"] + layer["bias"]
    gate, z = 1 / (1 + np.exp(-x)), np.asarray(out.embeddings[0], np.float64)
    terms = []
    for own, partner, one_gate, row in zip(labels, partners, gate, z, strict=True):
        logits = unit(row * one_gate) @ unit(z * one_gate).T / 0.3
        negatives = np.exp(logits[(labels != own) & (labels != partner)]).sum()
        terms += [np.log(np.exp(s) + negatives) - s for s in logits[labels == partner]]
    np.testing.assert_allclose(objective(method, out), np.mean(terms), rtol=1e-4)


def test_every_head_has_its_share_of_the_embedding_and_weights_of_its_own():
    heads = 3
    method = Amcl(heads=heads, temperature_hidden=5, penalty=0.1)
    sizes = SIZES._replace(embedding=heads * WIDTH)
    out = outputs(width=heads * WIDTH, params=method.init_params(jax.random.key(1), sizes))
    first, last = ({name: np.asarray(leaf) for name, leaf in out.params[layer].items()} for layer in ("hidden", "out"))

    def of_head(z):
        z = unit(z)
        phi = np.maximum(z @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"]
        tau = 1e-5 + (2 - 1e-5) / (1 + np.exp(phi @ phi.T))
        others = ~np.eye(2 * ROWS, dtype=bool)
        logits = np.where(others, z @ z.T / tau, -np.inf)
        positives = logits[np.arange(2 * ROWS), np.roll(np.arange(2 * ROWS), ROWS)]
        return np.mean(logsumexp(logits, 1) - positives) + 0.1 * np.mean((WIDTH / 2 * np.log(tau) + 1 / tau)[others])

    stacked = np.concatenate(out.embeddings)
    want = sum(of_head(stacked[:, h * WIDTH : (h + 1) * WIDTH]) for h in range(heads))
    np.testing.assert_allclose(objective(method, out), want, rtol=1e-4)

    network = method.with_heads(hidden=5, out=WIDTH).network(tiny_config().encoder, None)
    pixels = jnp.zeros((2, 8, 8, 1))
    branch, variables = network.init_with_output(jax.random.key(0), pixels, train=False)
    assert branch.embedding.shape == (2, heads * WIDTH)
    kernels = [head["linear_0"]["kernel"] for head in variables["params"]["projector"].values()]
    assert len(kernels) == heads and not np.allclose(kernels[0], kernels[1])


@pytest.mark.parametrize(
    "kind, fields, words",
    [
        (Amcl, {"heads": 0}, "heads must be at least 1, got 0"),
        (Amcl, {"least_temperature": 2.0}, "least_temperature must be below method.most_temperature"),
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
