"""States of methods from step to step, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import cosine, lse, unit
from distributed import map_rows
from entries import prototypes as oracles
from entries.distillation import dino as dino_oracle

from jaxclr import losses
from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods import METHODS, MomentumEncoder, Outputs, Sizes
from jaxclr.methods.image_text import at_most

ROWS, WIDTH, IMAGES = 16, 6, 40
SIZES = Sizes(images=IMAGES, classes=0, batch=ROWS, representation=5, embedding=WIDTH)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def outputs(seed, views=2, **changes):
    """What an objective may see: views of the same images, neither equal nor unrelated."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=(ROWS, WIDTH))
    draw = lambda: tuple(
        jnp.asarray(common + generator.normal(size=(ROWS, WIDTH))) for _ in range(views)
    )
    out = Outputs(
        embeddings=draw(),
        predictions=draw(),
        targets=draw(),
        representations=draw(),
        labels=jnp.full(ROWS, -1),
        indices=jnp.asarray(generator.permutation(IMAGES)[:ROWS]),
        params={},
        key=jax.random.key(seed),
        step=jnp.int32(seed),
        epoch=jnp.int32(0),
        progress=jnp.float64(0),
    )
    return out._replace(**changes)


def value(method, out, state):
    return jax.jit(functools.partial(method.objective, axis_name=None))(out, state)


def following(method, state, *seen):
    """The states before each of these outputs, and after the last."""
    states = [state]
    step = jax.jit(functools.partial(method.next_state, axis_name=None))
    for out in seen:
        states.append(step(out, states[-1]))
    return states


def numpys(arrays):
    return [np.asarray(array, np.float64) for array in arrays]


def test_uni_grad_runs_its_correlation_on_before_it_uses_it():
    method = METHODS["uni_grad"](correlation_weight=3.0, correlation_momentum=0.9)
    seen = [outputs(step) for step in range(3)]
    states = following(method, method.init_state(jax.random.key(0), SIZES), *seen)
    running = 0
    for step, out in enumerate(seen):
        rows = unit(np.concatenate(numpys(out.targets)))
        kept = 0.9 if step else 0.0
        running = kept * running + (1 - kept) * rows.T @ rows / len(rows)
        np.testing.assert_allclose(states[step + 1], running, atol=1e-12)
        (z1, z2), (m1, m2) = map(numpys, (out.embeddings, out.targets))
        energies = [
            np.einsum("bd,de,be->b", unit(z), running, unit(z)) * 3 / 2 - cosine(z, m)
            for z, m in ((z1, m2), (z2, m1))
        ]
        np.testing.assert_allclose(value(method, out, states[step]), np.mean(energies))


def test_tico_counts_its_queries_from_zero():
    method = METHODS["tico"](covariance_momentum=0.8)
    seen = [outputs(step, views=1) for step in range(3)]
    states = following(method, method.init_state(jax.random.key(0), SIZES), *seen)
    running = np.zeros((WIDTH, WIDTH))
    for out, state in zip(seen, states[1:], strict=True):
        (rows,) = map(unit, numpys(out.embeddings))
        running = 0.8 * running + 0.2 * np.mean(rows[:, :, None] * rows[:, None, :], axis=0)
        np.testing.assert_allclose(state, running, atol=1e-12)


@pytest.mark.parametrize("name", ["direct_pred", "direct_copy"])
def test_direct_predictors_count_both_views_as_they_are(name):
    method = METHODS[name](correlation_momentum=0.8)
    seen = [outputs(step) for step in range(3)]
    states = following(method, method.init_state(jax.random.key(0), SIZES), *seen)
    running = 0
    for step, out in enumerate(seen):
        rows, kept = np.concatenate(numpys(out.embeddings)), 0.8 if step else 0.0
        running = kept * running + (1 - kept) * rows.T @ rows / len(rows)
        np.testing.assert_allclose(states[step + 1], running, atol=1e-12)


def test_lejepa_draws_new_directions_in_every_step():
    method, out = METHODS["lejepa"](slices=3), outputs(0)
    again = out._replace(key=jax.random.key(9))
    assert value(method, out, ()) != value(method, again, ())


@pytest.mark.parametrize(
    "name, memory", [("sim_trace_running", 1.0), ("sim_whitening_running", 0.1)]
)
def test_running_moments_take_a_batch_in_before_the_loss_sees_them(name, memory):
    settings = {"temperature": 0.5, "symmetry_weight": 0.3} if "whitening" in name else {}
    method = METHODS[name](eps=0.05, **settings)
    seen = [outputs(step) for step in range(3)]
    states = following(method, method.init_state(jax.random.key(0), SIZES), *seen)
    mean, covariance, count = np.zeros((1, WIDTH)), np.zeros((WIDTH, WIDTH)), 0
    for step, out in enumerate(seen):
        (q1, q2), (k1, k2) = (
            list(map(unit, numpys(views))) for views in (out.predictions, out.targets)
        )
        rows = np.concatenate([q1, k2])
        old, new = memory * count, len(rows)
        mean = (old * mean + new * rows.mean(0, keepdims=True)) / (old + new)
        covariance = (old * covariance + new * np.cov(rows.T)) / (old + new)
        count += new
        np.testing.assert_allclose(states[step + 1].mean, mean, atol=1e-12)
        np.testing.assert_allclose(states[step + 1].covariance, covariance, atol=1e-12)
        inverse = np.linalg.inv(covariance + 0.05 * np.eye(WIDTH))
        want = 0
        for q, k in ((q1, k2), (q2, k1)):
            a = (q - mean) @ inverse @ (k - mean).T
            if "whitening" in name:
                a = a / (ROWS * 0.5)
                want += np.mean(lse(a) - np.diag(a)) + 0.3 * np.linalg.norm(a - a.T)
            else:
                want -= np.trace(a) / ROWS
        np.testing.assert_allclose(value(method, out, states[step]), want)


def test_running_moments_are_constant():
    method, out = METHODS["sim_trace_running"](), outputs(0)
    state = method.init_state(jax.random.key(0), SIZES)
    q1, q2 = out.predictions
    loss = lambda q1: method.objective(out._replace(predictions=(q1, q2)), state, None)
    found = jax.jit(jax.grad(loss))(q1)
    # At step 0 they are those of the batch, which sim_trace holds constant.
    want = jax.jit(jax.grad(lambda q1: losses.sim_trace(q1, out.targets[1])))(q1)
    np.testing.assert_allclose(found, want, atol=1e-12)


def test_the_whitened_logits_may_be_divided_by_a_number():
    out, state = outputs(0), METHODS["sim_whitening_running"]().init_state(jax.random.key(0), SIZES)
    method = METHODS["sim_whitening_running"](symmetry_weight=0.32)
    same = method.replace(
        logit_divisor=float(ROWS), symmetry_weight=0.32 * ROWS, symmetry_scale="per_sample"
    )
    np.testing.assert_allclose(value(method, out, state), value(same, out, state))


@pytest.mark.parametrize("name", ["sim_siam_gsg", "byol_gsg"])
def test_guided_stop_gradient_pairs_each_image_with_a_random_one(name):
    out = outputs(5)
    partners = np.asarray(jax.random.permutation(out.key, ROWS))
    (p1, p2), (z1, z2) = map(numpys, (out.predictions, out.targets))
    terms = []
    for i, j in enumerate(partners):
        pairs = [(a, b) for a in (0, 1) for b in (0, 1)]
        p, z = [(p1[i], p2[i]), (p1[j], p2[j])], [(z1[i], z2[i]), (z1[j], z2[j])]
        a, b = min(pairs, key=lambda pair: np.linalg.norm(z[0][pair[0]] - z[1][pair[1]]))
        terms.append(cosine(p[0][a], z[0][1 - a]) + cosine(p[1][b], z[1][1 - b]))
    np.testing.assert_allclose(value(METHODS[name](), out, {}), -np.mean(terms) / 2)


def swav_scores(out, params, state):
    prototypes = unit(np.asarray(params["prototypes"]))
    score = lambda rows: unit(np.asarray(rows, np.float64)) @ prototypes.T
    return [score(z) for z in out.embeddings], [score(queue.rows) for queue in state]


def test_swav_assigns_with_its_queue_once_that_is_full_and_its_epoch_has_come():
    method = METHODS["swav"](prototypes=5, queue_size=2 * ROWS, queue_from=1)
    params = method.init_params(jax.random.key(0), SIZES)
    seen = [outputs(step, views=3, params=params) for step in range(3)]
    states = following(method, method.init_state(jax.random.key(1), SIZES), *seen)
    for queue, crop in zip(states[2], (0, 1), strict=True):
        rows = np.concatenate([np.asarray(out.embeddings[crop]) for out in seen[:2]])
        np.testing.assert_allclose(queue.rows, unit(rows), atol=1e-12)
    for step, epoch, used in ((1, 1, False), (2, 0, False), (2, 1, True)):
        out = seen[step]._replace(epoch=jnp.int32(epoch))
        scores, earlier = swav_scores(out, params, states[step])
        want = oracles.swav(scores, (0, 1), 0.1, 0.05, earlier if used else None)
        np.testing.assert_allclose(
            value(method, out, states[step]), want, err_msg=f"{step} {epoch}"
        )


def test_swav_freezes_its_prototypes_at_first():
    method = METHODS["swav"](prototypes=5, freeze_prototypes=2)
    params = method.init_params(jax.random.key(0), SIZES)
    assert method.init_state(jax.random.key(0), SIZES) == ()

    def gradient(step):
        out = outputs(step)
        return jax.grad(lambda params: method.objective(out._replace(params=params), (), None))(
            params
        )

    assert not gradient(1)["prototypes"].any()
    assert np.abs(gradient(2)["prototypes"]).max() > 1e-3


def test_dino_averages_prototypes_and_center_and_warms_its_teacher_up():
    """The average starts with the first prototypes and includes those of its step."""
    method = METHODS["dino"](
        prototypes=5, warmup_epochs=3, target=MomentumEncoder(0.8, update="after_update")
    )
    params = [method.init_params(jax.random.key(step), SIZES) for step in range(3)]
    seen = [
        outputs(step, views=3, params=own, epoch=jnp.int32(step), progress=step / 3)
        for step, own in enumerate(params)
    ]
    seen = [out._replace(targets=out.targets[:2]) for out in seen]
    states = following(method, method.init_state(jax.random.key(1), SIZES), *seen)
    center, teacher = np.zeros(5), np.asarray(params[0]["prototypes"])
    for step, (out, temperature) in enumerate(zip(seen, (0.04, 0.055, 0.07), strict=True)):
        current = np.asarray(params[step]["prototypes"], np.float64)
        kept = 1 - 0.2 * (1 + np.cos(np.pi * step / 3)) / 2
        teacher = kept * teacher + (1 - kept) * current
        score = lambda rows, to: np.stack([unit(z) @ unit(to).T for z in numpys(rows)])
        scores = score(out.targets, teacher)
        want = dino_oracle(score(out.embeddings, current), scores, center, 0.1, temperature)
        np.testing.assert_allclose(value(method, out, states[step]), want, rtol=1e-6)
        center = 0.9 * center + 0.1 * scores.mean(axis=(0, 1))
        np.testing.assert_allclose(states[step + 1]["prototypes"], teacher, rtol=1e-6)
        np.testing.assert_allclose(states[step + 1]["center"], center, rtol=1e-6)


@pytest.mark.parametrize("name", ["nnclr", "nnbyol", "ressl"])
def test_a_queue_takes_one_view_after_it_was_compared(name):
    method, out = METHODS[name](queue_size=2 * ROWS), outputs(0)
    if name == "ressl":
        out = out._replace(embeddings=out.embeddings[:1], targets=out.targets[1:])
    before, after = following(method, method.init_state(jax.random.key(1), SIZES), out)
    np.testing.assert_allclose(after.rows[:ROWS], unit(np.asarray(out.targets[0])))
    np.testing.assert_array_equal(after.rows[ROWS:], before.rows[ROWS:])


@pytest.mark.parametrize(
    "value, gradient, passed",
    [(1.5, -1.0, -1.0), (2.0, -1.0, -1.0), (2.5, -1.0, 0.0), (2.5, 1.0, 1.0)],
)
def test_a_scale_beyond_its_bound_may_only_come_back(value, gradient, passed):
    bounded, pull = jax.vjp(lambda scale: at_most(scale, 2.0, None), jnp.float64(value))
    assert bounded == min(value, 2.0) and pull(jnp.float64(gradient)) == (passed,)


def test_the_bound_of_a_scale_is_that_of_the_global_batch():
    """A device whose own share would raise the scale follows the batch, which lowers it."""
    shares = jnp.array([-1.0, 3.0])
    gradient = lambda share: jax.grad(lambda scale: share[0] * at_most(scale, 2.0, "batch"))(2.5)
    found = map_rows(lambda share: gradient(share)[None], 2, "shard_map")(shares)
    np.testing.assert_array_equal(found, shares)


def clustered(name, **settings):
    method = METHODS[name](clusters=(4, 7), queue_size=ROWS, warmup_epochs=2, **settings)
    state = method.init_state(jax.random.key(0), SIZES)
    embeddings = jnp.asarray(np.random.default_rng(1).normal(size=(IMAGES, WIDTH)))
    return (
        method,
        jax.jit(method.refresh)(state, embeddings, jax.random.key(2)),
        unit(np.asarray(embeddings)),
    )


def test_pcl_clusters_all_images():
    method, state, rows = clustered("pcl")
    assert method.refresh_from == 2
    for found, count in zip(state["clusterings"], (4, 7), strict=True):
        assert found.prototypes.shape == (count, WIDTH) and found.assignments.shape == (IMAGES,)
        means = [rows[found.assignments == k].mean(0) for k in range(count)]
        np.testing.assert_allclose(found.prototypes, unit(np.stack(means)), atol=1e-9)
        np.testing.assert_allclose(np.mean(found.concentrations), 0.2, rtol=0.1)


@pytest.mark.parametrize("name", ["pcl", "pauc"])
def test_clusters_count_from_their_epoch_on(name):
    method, state, _ = clustered(name)
    out = outputs(0)
    if name == "pcl":  # it has one view of each kind
        out = out._replace(embeddings=out.embeddings[:1])
    instances = losses.queue_info_nce(
        out.embeddings[0], out.targets[0], state["queue"].rows, temperature=0.2
    )
    terms = []
    for found in state["clusterings"]:
        own, every = found.assignments[out.indices], jnp.arange(len(found.prototypes))
        terms.append(
            losses.proto_nce(out.embeddings[0], found.prototypes, own, found.concentrations, every)
        )
        if name == "pauc":
            terms[-1] += losses.pauc(*out.embeddings, found.prototypes, own)
    np.testing.assert_allclose(value(method, out._replace(epoch=jnp.int32(1)), state), instances)
    after = value(method, out._replace(epoch=jnp.int32(2)), state)
    np.testing.assert_allclose(after, instances + np.mean(terms))


def test_pcl_draws_so_many_negatives():
    method, state, _ = clustered("pcl", negatives=2)
    found = state["clusterings"][1]
    out = outputs(
        0, indices=jnp.zeros(ROWS, jnp.int32)
    )  # one prototype of the seven is in the batch
    term = jax.jit(lambda key: method.of_clusters(out, found, key, None))
    draws = [float(term(jax.random.key(seed))) for seed in range(4)]
    every = losses.proto_nce(
        out.embeddings[0],
        found.prototypes,
        found.assignments[out.indices],
        found.concentrations,
        jnp.arange(7),
    )
    assert len(set(draws)) > 1 and max(draws) < every


@pytest.mark.parametrize(
    "name, settings, words",
    [
        (
            "w_mse",
            {"whitening_size": 12},
            "whitening_size must divide the batch of 16, got 12",
        ),
        ("w_mse", {"whitening_size": 1}, "whitening_size must be at least 2, got 1"),
        (
            "w_mse",
            {"whitening_size": 4},
            "whitening_size must be more than the 6 dimensions .* got 4",
        ),
        (
            "pcl",
            {"clusters": (4, 41)},
            r"clusters must be at most 40, the number of training images, got \(4, 41\)",
        ),
        ("pcl", {"clusters": ()}, "clusters must be of length 1 or more, got"),
        (
            "pauc",
            {"clusters": (4,), "queue_size": 24},
            "queue_size must be a multiple of the batch of 16, got 24",
        ),
        ("swav", {"queue_size": 8}, "queue_size must be a multiple of the batch of 16, got 8"),
    ],
)
def test_what_does_not_fit_the_batch_or_the_images_is_refused(name, settings, words):
    with pytest.raises(UserError, match=words):
        METHODS[name](**settings).init_state(jax.random.key(0), SIZES)


def test_shrunk_covariances_may_be_of_few_rows():
    method = METHODS["w_mse"](whitening_size=4, shrinkage=0.1)
    assert method.init_state(jax.random.key(0), SIZES) == {}
    assert np.isfinite(value(method, outputs(0, views=4), {}))


@pytest.mark.parametrize(
    "name, settings, words",
    [
        ("w_mse", {"shrinkage": 1.5}, "method.shrinkage must be at least 0 and at most 1, got 1.5"),
        ("w_mse", {"whitening_iterations": 0}, "whitening_iterations must be at least 1, got 0"),
        ("vicreg", {"variance": -1.0}, "method.variance must be at least 0, got -1.0"),
        (
            "barlow_twins",
            {"off_diagonal": float("nan")},
            "off_diagonal must be a finite number, got nan",
        ),
        (
            "uni_grad",
            {"correlation_momentum": -0.1},
            "correlation_momentum must be at least 0 and at most 1",
        ),
        ("tico", {"covariance_momentum": 1.1}, "covariance_momentum must be .* at most 1, got 1.1"),
        ("lejepa", {"weight": -0.1}, "method.weight must be at least 0 and at most 1, got -0.1"),
        ("swav", {"prototypes": 0}, "prototypes must be at least 1, got 0"),
        ("swav", {"epsilon": 0.0}, "epsilon must be greater than 0, got 0.0"),
        ("pauc", {"t": 0.0}, "method.t must be greater than 0, got 0.0"),
        ("sim_siam_gsg", {"predictor": Mlp(out=8)}, "predictions and targets need one width"),
    ],
)
def test_values_out_of_range_are_refused(name, settings, words):
    with pytest.raises(UserError, match=words):
        METHODS[name](**settings)
