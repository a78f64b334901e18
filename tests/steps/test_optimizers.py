"""The chains against their published update rules, written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxclr.errors import UserError
from jaxclr.steps.optimizers import AdamW, Lars, Sgd, make_optimizer, momentum_ramp, warmup_cosine

GENERATOR = np.random.default_rng(0)
PARAMS = {
    "encoder": {"kernel": GENERATOR.normal(size=(3, 4)), "bias": GENERATOR.normal(size=4)},
    "predictor": {"kernel": GENERATOR.normal(size=(4, 2))},
}
GRADIENTS = [jax.tree.map(lambda p: GENERATOR.normal(size=p.shape), PARAMS) for _ in range(3)]
RATES = [0.1, 0.2, 0.05]


def run(optimizer, **options):
    with jax.enable_x64(True):
        chain = make_optimizer(
            optimizer,
            schedule=lambda step: jnp.asarray(RATES)[step],
            clip_norm=options.pop("clip_norm", None),
            peak=0.5,
            **options,
        )
        params = jax.tree.map(jnp.asarray, PARAMS)
        state = chain.init(params)
        for gradients in GRADIENTS:
            updates, state = jax.jit(chain.update)(gradients, state, params)
            params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


def expected(rule):
    """Applies rule(param, gradient, memory, rate, step) -> (param, memory) to every leaf."""

    def leaf(param, *gradients):
        memory = [np.zeros_like(param), np.zeros_like(param)]
        for step, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
            param, memory = rule(param, gradient, memory, rate, step)
        return param

    return jax.tree.map(leaf, PARAMS, *GRADIENTS)


def assert_equal(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), one, other)


def test_sgd():
    def rule(p, g, memory, rate, step):
        buffer = 0.9 * memory[0] + g + (0.01 * p if p.ndim > 1 else 0)
        return p - rate * buffer, [buffer, None]

    assert_equal(run(Sgd(momentum=0.9, weight_decay=0.01)), expected(rule))


def test_lars_applies_the_rate_after_momentum_and_spares_biases():
    def rule(p, g, memory, rate, step):
        if p.ndim > 1:
            g = g + 0.01 * p
            g = g * 0.02 * np.linalg.norm(p) / np.linalg.norm(g)
        buffer = 0.9 * memory[0] + g
        return p - rate * buffer, [buffer, None]

    assert_equal(run(Lars(weight_decay=0.01, trust=0.02)), expected(rule))


def test_lars_may_train_biases_at_a_rate_of_their_own():
    same = {"learning_rate": 0.2, "weight_decay": 1e-6}
    plain, apart = run(Lars(**same)), run(Lars(**same, bias_and_norm_rate=0.0048))
    moved = lambda params: params["encoder"]["bias"] - PARAMS["encoder"]["bias"]
    np.testing.assert_allclose(moved(apart), 0.024 * moved(plain), rtol=1e-10)
    for part in ("encoder", "predictor"):
        np.testing.assert_array_equal(apart[part]["kernel"], plain[part]["kernel"])
    assert len(Lars().direction().init(PARAMS)) == 3  # the state of runs made before


def test_lars_trusts_fully_where_a_norm_is_zero():
    chain = make_optimizer(Lars(weight_decay=0.0), schedule=lambda _: 1.0, clip_norm=None, peak=1.0)
    params = {"encoder": jnp.zeros((2, 2))}
    updates, _ = chain.update({"encoder": jnp.ones((2, 2))}, chain.init(params), params)
    np.testing.assert_allclose(updates["encoder"], -np.ones((2, 2)))


def test_adamw():
    def rule(p, g, memory, rate, step):
        first, second = 0.9 * memory[0] + 0.1 * g, 0.999 * memory[1] + 0.001 * g * g
        direction = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        return p - rate * (direction + (0.1 * p if p.ndim > 1 else 0)), [first, second]

    assert_equal(run(AdamW(weight_decay=0.1)), expected(rule))


def test_a_part_may_keep_its_rate_or_stand_still():
    plain = Sgd(momentum=0.0, weight_decay=0.0)
    moved = run(plain, constant_rate=("predictor",), freeze=("*/bias",))
    total = sum(g["predictor"]["kernel"] for g in GRADIENTS)
    np.testing.assert_allclose(
        moved["predictor"]["kernel"], PARAMS["predictor"]["kernel"] - 0.5 * total
    )
    np.testing.assert_array_equal(moved["encoder"]["bias"], PARAMS["encoder"]["bias"])


@pytest.mark.parametrize(
    "optimizer",
    [
        Sgd(weight_decay=0.1),
        Lars(weight_decay=0.1),
        AdamW(weight_decay=0.1),
        lambda schedule: optax.adamw(schedule, weight_decay=0.1),
    ],
)
@pytest.mark.parametrize("constant_rate", [(), ("predictor",)])
def test_frozen_parts_stand_still_and_take_no_memory(optimizer, constant_rate):
    options = {"schedule": lambda step: 0.1, "clip_norm": 1.0, "peak": 0.1}
    freeze, options["constant_rate"] = ("encoder/kernel", "predictor"), constant_rate
    chain = make_optimizer(optimizer, freeze=freeze, **options)
    params, *steps = jax.tree.map(np.float32, [PARAMS, *GRADIENTS])
    state, moved = chain.init(params), params
    for gradients in steps:
        updates, state = chain.update(gradients, state, moved)
        moved = optax.apply_updates(moved, updates)
    np.testing.assert_array_equal(moved["encoder"]["kernel"], params["encoder"]["kernel"])
    np.testing.assert_array_equal(moved["predictor"]["kernel"], params["predictor"]["kernel"])
    assert (moved["encoder"]["bias"] != params["encoder"]["bias"]).all()
    assert {leaf.shape for leaf in jax.tree.leaves(state)} <= {(), (4,)}
    # The rest moves as if it were alone: frozen gradients are not part of the norm.
    alone = make_optimizer(optimizer, **options)
    bias = {"encoder": {"bias": params["encoder"]["bias"]}}
    state = alone.init(bias)
    for gradients in steps:
        part = {"encoder": {"bias": gradients["encoder"]["bias"]}}
        updates, state = alone.update(part, state, bias)
        bias = optax.apply_updates(bias, updates)
    np.testing.assert_allclose(moved["encoder"]["bias"], bias["encoder"]["bias"], rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm():
    moved = run(Sgd(momentum=0.0, weight_decay=0.0), clip_norm=1e-3)
    distance = np.sqrt(
        sum(
            np.sum((a - b) ** 2)
            for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(PARAMS), strict=True)
        )
    )
    assert 0 < distance <= sum(RATES) * 1e-3


def test_the_schedule_warms_up_and_ends_at_zero():
    schedule = warmup_cosine(2.0, warmup_steps=10, steps=110)
    rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0, 1, 2, 1, 0], atol=1e-6)
    assert float(warmup_cosine(2.0, warmup_steps=0, steps=10)(0)) == 2


def test_the_momentum_ramps_to_one():
    ramp = [float(momentum_ramp(0.9, ramp=True, step=jnp.int32(s), steps=10)) for s in (0, 5, 10)]
    np.testing.assert_allclose(ramp, [0.9, 0.95, 1.0], atol=1e-6)
    assert float(momentum_ramp(0.9, ramp=False, step=jnp.int32(5), steps=10)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "kind, field, bad",
    [
        (Sgd, "learning_rate", 0.0),
        (Lars, "trust", -1.0),
        (AdamW, "beta2", 1.0),
        (Sgd, "weight_decay", -0.1),
    ],
)
def test_bad_values_are_refused(kind, field, bad):
    with pytest.raises(UserError, match=f"optimizer.{field} must be"):
        kind(**{field: bad})
