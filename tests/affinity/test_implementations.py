"""Streamed = ring = dense, in value and every gradient, for any shape and any scale."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import loss_and_gradients
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxclr import affinity
from jaxclr.affinity import unit_rows

pytestmark = pytest.mark.usefixtures("strict_promotion")
TILE = 16


def draw(kind, rows, columns, width, seed):
    """Two sets of unit rows: random, nearly collapsed, duplicated, or one row of norm 1e4."""
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(rows, width)), generator.normal(size=(columns, width))
    if kind == "collapsed":
        x, y = 1 + 1e-3 * x, 1 + 1e-3 * y
    if kind == "duplicated":
        x, y = x[np.arange(rows) % 3 % rows], y[np.arange(columns) % 3 % columns]
    if kind == "spiked":
        x[0] *= 1e4
    return tuple(unit_rows(jnp.asarray(z, jnp.float32)) for z in (x, y))


def row_loss(x, y, bias, weights, ids, *, temperature, **options):
    """A weighted sum of log-sum-exps of unit rows, with a bias on columns and pairs left out."""
    lse = affinity.row_logsumexp(x / temperature, y, column_bias=bias, exclude=ids, **options)
    return jnp.sum(weights * finite(lse))


def labeled_loss(x, y, ids, *, temperature, **options):
    """SupCon's mean over the rows of the same label; shifted ids are the labels."""
    labels = tuple(1 - i // 2 for i in ids)
    lse, matched, count = affinity.labeled_logsumexp(
        x / temperature, y, labels=labels, exclude=ids, **options
    )
    return jnp.sum(finite(lse) * count - matched)


def attention_loss(x, y, bias, ids, *, temperature, **options):
    """Something of the log-sum-exp, of each entry of the mean column and of the entropy."""
    lse, mean = affinity.attention(x / temperature, y, column_bias=bias, exclude=ids, **options)
    again, logit = affinity.expected_logit(x / temperature, y, exclude=ids, **options)
    entropy = jnp.sum(x[:, 0] * (finite(again) - logit))
    return jnp.sum(finite(lse)) + jnp.sum(jnp.sin(3 * mean + x)) + entropy


def self_loss(x, labels, *, temperature, **options):
    lse = affinity.self_logsumexp(x / temperature**0.5, **options)
    again, matched, count = affinity.self_labeled_logsumexp(
        x / temperature**0.5, labels=labels, **options
    )
    of_others = affinity.self_logsumexp(x / temperature**0.5, exclude=labels, **options)
    return jnp.sum(finite(lse) + finite(again) * count - matched + finite(of_others))


def divergence_loss(x, *, temperature, **options):
    """A sum, with weights, of the divergence of x from itself in another order of entries."""
    apart = affinity.divergence(x / temperature, x[:, ::-1], **options)
    return jnp.sum(apart * (1 + x[:, 0]))


def crossed_loss(x, y, bias, ids, *, temperature, **options):
    """A sum, with weights, of log-sum-exps of rows and columns, and of softplus of rows."""
    of_rows, of_columns = affinity.cross_logsumexp(x / temperature, y, exclude=ids, **options)
    softplus = affinity.row_softplus(x / temperature, y, exclude=ids, column_bias=bias, **options)
    total = jnp.sum(finite(of_rows) * (1 + x[:, 0])) + jnp.sum(finite(of_columns) * y[:, 0])
    return total + jnp.sum(softplus * (1 + x[:, 0]))


def finite(values):
    return jnp.where(jnp.isfinite(values), values, 0.0)


def assert_as_exact(ours, dense, exact, what):
    """Within 2e-6 of the largest entry, or as near to float64 as the dense form is.

    At a temperature of 0.01 float32 rounds logits near 100 by 4e-6, in any form: no two forms agree
    better than that.
    """
    scale = max(np.abs(exact).max(), 1e-30)
    off = lambda value: np.abs(np.asarray(value, np.float64) - exact).max()
    assert off(ours) <= 2e-6 * scale + 2 * off(dense) + 1e-12, what


@settings(max_examples=1, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 53),
    width=st.integers(1, 9),
    temperature=st.sampled_from([0.01, 0.1, 1.0]),
    kind=st.sampled_from(["random", "collapsed", "duplicated", "spiked"]),
    seed=st.integers(0, 99),
)
@example(rows=7, columns=5, width=3, temperature=0.01, kind="spiked", seed=0)
@example(rows=37, columns=53, width=4, temperature=0.01, kind="duplicated", seed=1)
def test_streamed_is_dense(rows, columns, width, temperature, kind, seed):
    x, y = draw(kind, rows, columns, width, seed)
    generator = np.random.default_rng(seed)
    bias = jnp.asarray(generator.normal(size=columns), jnp.float32)
    weights = jnp.asarray(generator.normal(size=rows), jnp.float32)
    ids = tuple(jnp.asarray(generator.integers(0, 4, size=n), jnp.int32) for n in (rows, columns))

    @functools.partial(jax.jit, static_argnums=0)
    def both(how, *arrays):
        options = {"temperature": temperature, "implementation": how, "tile": TILE}
        differentiate = lambda f, *places: jax.value_and_grad(
            functools.partial(f, **options), places
        )
        x, y, bias, _ = arrays
        of_rows = differentiate(row_loss, 0, 1, 2, 3)(*arrays, ids)
        of_labels = differentiate(labeled_loss, 0, 1)(x, y, ids)
        of_mean = differentiate(attention_loss, 0, 1, 2)(x, y, bias, ids)
        of_both = differentiate(crossed_loss, 0, 1, 2)(x, y, bias, ids)
        of_self = differentiate(self_loss, 0)(x, ids[0])
        of_itself = differentiate(divergence_loss, 0)(x)
        return jax.tree.leaves((of_rows, of_labels, of_mean, of_both, of_self, of_itself))

    arrays = (x, y, bias, weights)
    dense, streamed = both("dense", *arrays), both("streamed", *arrays)
    with jax.enable_x64(True):
        exact = both("dense", *(jnp.asarray(a, jnp.float64) for a in arrays))
        exact = [np.asarray(a) for a in exact]
    for place, leaves in enumerate(zip(streamed, dense, exact, strict=True)):
        assert_as_exact(*leaves, place)


GENERATOR = np.random.default_rng(0)
SPREAD = (*GENERATOR.normal(size=(2, 40, 3)), GENERATOR.normal(size=40), np.ones(40))
SPREAD_IDS = GENERATOR.integers(0, 5, size=(2, 40)).astype(np.int32)


def every_loss(x, y, bias, weights, axis_name=None, implementation="dense"):
    """This device's share of the sum of all of them."""
    size = jax.lax.psum(1, axis_name) if axis_name else 1
    first = jax.lax.axis_index(axis_name) * x.shape[0] if axis_name else 0
    local = tuple(
        jax.lax.dynamic_slice_in_dim(jnp.asarray(i), first, x.shape[0]) for i in SPREAD_IDS
    )
    options = dict(axis_name=axis_name, implementation=implementation, tile=4)
    total = row_loss(x, y, bias, weights, local, temperature=0.1, **options)
    total += labeled_loss(x, y, local, temperature=0.3, **options)
    total += attention_loss(x, y, bias, local, temperature=0.2, **options)
    total += crossed_loss(x, y, bias, local, temperature=0.4, **options)
    total += divergence_loss(x, temperature=0.5, **options)
    return size * (total + self_loss(x, local[0], temperature=0.5, **options))


@functools.cache
def on_one_device():
    with jax.enable_x64(True):
        return jax.jit(jax.value_and_grad(every_loss, (0, 1, 2, 3)))(*SPREAD)


TWO_AXES = ("shard_map", ("slice", "chip"))
ONE_AXIS = tuple(
    pytest.param(implementation, how, ("batch",), marks=pytest.mark.full)
    for implementation in ("dense", "streamed", "ring")
    for how in ("pmap", "shard_map")
    if (implementation, how) != ("ring", "pmap")
)


@pytest.mark.parametrize(
    "implementation, how, names",
    [
        ("dense", *TWO_AXES),
        ("streamed", *TWO_AXES),
        ("ring", *TWO_AXES),
        ("ring", "pmap", ("batch",)),
        *ONE_AXIS,
    ],
)
def test_devices_agree(implementation, how, names):
    value, gradients = on_one_device()
    with jax.enable_x64(True):
        spread = functools.partial(every_loss, implementation=implementation)
        spread_value, spread_gradients = loss_and_gradients(spread, SPREAD, 8, how, names)
        np.testing.assert_allclose(spread_value, value, rtol=1e-10)
        for one, other in zip(gradients, spread_gradients, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-12)


def test_auto_takes_what_was_measured():
    rows = jnp.zeros((64, 8))
    assert affinity.logsumexp.choose("auto", rows, rows, None) == "dense"
    many = jax.ShapeDtypeStruct((4096, 8), jnp.float32)
    assert affinity.logsumexp.choose("auto", many, many, None) == "streamed"
    with pytest.raises(ValueError, match=r"implementation must be one of .* got 'fast'"):
        affinity.row_logsumexp(rows, rows, implementation="fast")
