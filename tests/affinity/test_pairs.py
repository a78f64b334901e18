"""The primitives against NumPy: masks by ids, biases, values beside rows and columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import map_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxclr import affinity, losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.normal(size=(8, 5)).astype(np.float32)
COLUMNS = GENERATOR.normal(size=(24, 5)).astype(np.float32)
BIAS = GENERATOR.normal(size=24).astype(np.float32)
ROW_LABELS = GENERATOR.integers(0, 3, size=8).astype(np.int32)
COLUMN_LABELS = GENERATOR.integers(0, 3, size=24).astype(np.int32)


def row_logsumexp(rows, columns, bias, of_rows, of_columns, axis_name=None):
    return affinity.row_logsumexp(
        rows, columns, column_bias=bias, exclude=(of_rows, of_columns), axis_name=axis_name
    )


def test_row_logsumexp_is_its_definition():
    scores = np.where(
        ROW_LABELS[:, None] != COLUMN_LABELS[None, :], np.exp(ROWS @ COLUMNS.T + BIAS[None, :]), 0
    )
    got = row_logsumexp(ROWS, COLUMNS, BIAS, ROW_LABELS, COLUMN_LABELS)
    np.testing.assert_allclose(got, np.log(scores.sum(axis=1)), rtol=1e-5)


def test_a_row_without_columns_has_minus_infinity():
    same = jnp.zeros(2, jnp.int32)
    got = affinity.row_logsumexp(jnp.ones((2, 3)), jnp.ones((2, 3)), exclude=(same, same))
    assert np.isneginf(got).all()


def statistics_in_numpy(x, y, bias, labels, ids):
    """Log-sum-exp, matched sum and count, and mean column, of NumPy arrays."""
    kept = ids[0][:, None] != ids[1][None, :]
    weights = np.where(kept, np.exp(x @ y.T + bias[None, :]), 0)
    matching = kept & (labels[0][:, None] == labels[1][None, :])
    total = weights.sum(axis=1)
    return (
        np.log(total),
        np.where(matching, x @ y.T, 0).sum(axis=1),
        matching.sum(axis=1),
        weights @ y / total[:, None],
    )


@pytest.mark.parametrize("implementation", ["dense", "streamed"])
def test_labels_and_attention_are_their_definitions(implementation):
    ids, labels = (ROW_LABELS, COLUMN_LABELS), (ROW_LABELS % 2, (COLUMN_LABELS + 1) % 2)
    options = {"exclude": ids, "implementation": implementation, "tile": 5}
    _, matched, count, mean = statistics_in_numpy(ROWS, COLUMNS, BIAS, labels, ids)
    lse, *_ = statistics_in_numpy(ROWS, COLUMNS, 0 * BIAS, labels, ids)
    found = affinity.labeled_logsumexp(ROWS, COLUMNS, labels=labels, **options)
    for got, wanted in zip(found, (lse, matched, count), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    _, got = affinity.expected_logit(ROWS, COLUMNS, **options)
    *_, unbiased = statistics_in_numpy(ROWS, COLUMNS, 0 * BIAS, labels, ids)
    np.testing.assert_allclose(got, np.sum(ROWS * unbiased, axis=1), rtol=1e-5, atol=1e-5)
    _, got = affinity.attention(ROWS, COLUMNS, column_bias=BIAS, **options)
    np.testing.assert_allclose(got, mean, rtol=1e-5, atol=1e-5)


def hinge(products, of_row, of_column):
    return jnp.maximum(products - of_row + of_column, 0.0)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(rows=st.integers(1, 40), columns=st.integers(1, 53), seed=st.integers(0, 99))
def test_functions_of_pairs_at_any_size(rows, columns, seed):
    generator = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x, y = (jnp.asarray(generator.normal(size=(n, 3))) for n in (rows, columns))
        p, q = (jnp.asarray(generator.normal(size=n)) for n in (rows, columns))
        u, v = (jnp.asarray(generator.integers(0, 3, size=n)) for n in (rows, columns))

        def dense(x, y, p, q):
            values = hinge(x @ y.T, p[:, None], q[None, :])
            kept = u[:, None] != v[None, :]
            total = jnp.sum(jnp.where(kept, values, 0.0))
            lse = jax.nn.logsumexp(values, axis=1, where=kept)
            best = jnp.max(jnp.where(kept, values, -jnp.inf), axis=1)
            return total + jnp.sum(jnp.where(jnp.any(kept, axis=1), lse, 0.0)), (
                best,
                jnp.sum(kept & (values > 0)),
            )

        def tiled(x, y, p, q):
            options = dict(row_values=(p,), column_values=(q,), exclude=(u, v), tile=16)
            both = lambda *values: (hinge(*values), (hinge(*values) > 0).astype(x.dtype))
            total, active = affinity.pair_sum(both, x, y, **options)
            lse = affinity.row_logsumexp_of(hinge, x, y, **options)
            best, place = affinity.row_max(hinge, x, y, **options)
            again = hinge(jnp.sum(x * y[place], axis=1), p, q[place])
            assert_where = jnp.where(jnp.isneginf(best), 0.0, again - best)
            return total + jnp.sum(jnp.where(jnp.isneginf(lse), 0.0, lse)), (
                best,
                active,
                assert_where,
            )

        (one, (best, active)), at_one = jax.jit(
            jax.value_and_grad(dense, (0, 1, 2, 3), has_aux=True)
        )(x, y, p, q)
        (other, found), at_other = jax.jit(jax.value_and_grad(tiled, (0, 1, 2, 3), has_aux=True))(
            x, y, p, q
        )
        near = lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)
        jax.tree.map(near, (one, at_one, best, active, jnp.zeros(rows)), (other, at_other, *found))


def test_a_function_of_pairs_may_close_over_parameters():
    def lse(x, y, scale, tile=16):
        return jnp.sum(affinity.row_logsumexp_of(lambda s: jnp.tanh(scale * s), x, y, tile=tile))

    dense = lambda x, y, scale: jnp.sum(jax.nn.logsumexp(jnp.tanh(scale * (x @ y.T)), axis=1))
    arrays = ROWS, COLUMNS, np.float32(0.5)
    for got, wanted in zip(
        jax.grad(lse, (0, 1, 2))(*arrays), jax.grad(dense, (0, 1, 2))(*arrays), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    largest = lambda scale: jnp.sum(affinity.row_max(lambda s: scale * s, ROWS, COLUMNS).value)
    assert jax.grad(largest)(np.float32(0.5)) == 0
    wide = jax.ShapeDtypeStruct((4096, 5), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    whole = jax.jit(jax.grad(lambda x, scale: lse(x, x, scale, tile=None), (0, 1)))
    assert whole.lower(*wide).compile().memory_analysis().temp_size_in_bytes < 4096 * 4096 * 4 / 2


def test_columns_of_all_devices_count():
    expected = row_logsumexp(ROWS, COLUMNS, BIAS, ROW_LABELS, COLUMN_LABELS)
    spread = map_rows(lambda *local: row_logsumexp(*local, axis_name="batch"), 4, "shard_map")(
        ROWS, COLUMNS, BIAS, ROW_LABELS, COLUMN_LABELS
    )
    np.testing.assert_allclose(spread, expected, rtol=1e-6)
    total = affinity.pair_sum(lambda s: s * s, ROWS, COLUMNS)
    shares = map_rows(
        lambda *local: affinity.pair_sum(lambda s: s * s, *local, axis_name="batch")[None],
        4,
        "pmap",
    )(ROWS, COLUMNS)
    np.testing.assert_allclose(shares.sum(), total, rtol=1e-5)


@pytest.mark.parametrize("difference", [1.0, 1e-1, 1e-2, 1e-3, 1e-4])
def test_asymmetry_is_as_exact_as_the_dense_form(difference):
    generator = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    x = unit(generator.normal(size=(256, 32)))
    y = unit(x + difference * generator.normal(size=x.shape))

    def dense(x, y):
        a = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.sqrt(jnp.sum((a - a.T) ** 2))

    with jax.enable_x64(True):
        exact, exact_gradient = jax.value_and_grad(dense)(jnp.asarray(x), jnp.asarray(y))
        single = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
        ours, our_gradient = jax.value_and_grad(affinity.asymmetry)(*single)
        theirs, their_gradient = jax.value_and_grad(dense)(*single)
        exact, ours, theirs, exact_gradient, our_gradient, their_gradient = (
            np.asarray(a, np.float64)
            for a in (exact, ours, theirs, exact_gradient, our_gradient, their_gradient)
        )
    assert abs(ours - exact) <= abs(theirs - exact) + 3e-7 * exact
    off = lambda gradient: np.linalg.norm(gradient - exact_gradient)
    assert off(our_gradient) <= off(their_gradient) + 1e-6 * np.linalg.norm(exact_gradient)


def test_equal_views_have_no_asymmetry_and_no_gradient():
    value, gradient = jax.value_and_grad(affinity.asymmetry)(ROWS, ROWS)
    assert value == 0 and not np.any(gradient)


def test_the_matrix_is_there_to_look_at():
    q, k = COLUMNS[:8], ROWS
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(
        affinity.matrix(q, k, temperature=0.5), unit(q) @ unit(k).T / 0.5, rtol=1e-5, atol=1e-6
    )
    whole = affinity.matrix(q, k, whitened=True)
    np.testing.assert_allclose(-np.trace(whole) / 8, losses.sim_trace(q, k), rtol=1e-5)
    spread = map_rows(
        lambda q, k: affinity.matrix(q, k, whitened=True, axis_name="batch"), 4, "shard_map"
    )(q, k)
    np.testing.assert_allclose(spread[:8], whole, rtol=1e-5, atol=1e-5)
