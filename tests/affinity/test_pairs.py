"""The primitives against NumPy: masks by ids, biases, values beside rows and columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import map_rows

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


def test_pair_sum_is_its_definition():
    hinge = lambda scores, row, column: jnp.maximum(scores - row + column, 0)
    scores = np.maximum(ROWS @ COLUMNS.T - ROWS[:, :1] + BIAS[None, :], 0)
    expected = scores[ROW_LABELS[:, None] != COLUMN_LABELS[None, :]].sum()
    got = affinity.pair_sum(
        hinge,
        ROWS,
        COLUMNS,
        row_values=(ROWS[:, 0],),
        column_values=(BIAS,),
        exclude=(ROW_LABELS, COLUMN_LABELS),
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_columns_of_all_devices_count():
    expected = row_logsumexp(ROWS, COLUMNS, BIAS, ROW_LABELS, COLUMN_LABELS)
    spread = map_rows(
        lambda *local: row_logsumexp(*local, axis_name="batch"), 4, "shard_map"
    )(ROWS, COLUMNS, BIAS, ROW_LABELS, COLUMN_LABELS)
    np.testing.assert_allclose(spread, expected, rtol=1e-6)
    total = affinity.pair_sum(lambda s: s * s, ROWS, COLUMNS)
    shares = map_rows(
        lambda *local: affinity.pair_sum(lambda s: s * s, *local, axis_name="batch")[None], 4, "pmap"
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
