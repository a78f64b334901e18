"""What is particular to losses of second moments."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import map_rows
from entries.redundancy import correlation

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("loss", [losses.vicreg, losses.barlow_twins])
def test_dimensions_may_be_permuted(loss):
    loss = jax.jit(loss)
    z1, z2 = normal(2, 12, 5)
    order = jnp.asarray([3, 0, 4, 1, 2])
    np.testing.assert_allclose(loss(z1[:, order], z2[:, order]), loss(z1, z2), rtol=1e-5)


def test_w_mse_knows_images_by_their_places():
    views = normal(2, 16, 3)
    generator = np.random.default_rng(1)
    permutations = np.stack([generator.permutation(16) for _ in range(2)])
    order = generator.permutation(16)
    place = np.argsort(order)  # where each image is after the change
    loss = jax.jit(functools.partial(losses.w_mse, whitening_size=8))
    value = loss(views, permutations)
    np.testing.assert_allclose(loss(views[:, order], place[permutations]), value, rtol=1e-5)
    assert abs(loss(views[:, order], permutations) - value) > 1e-2


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"whitening_size": 6}, ValueError, "must divide the 16 images of the global batch, got 6"),
        ({"whitening_size": 4}, ValueError, "must be more than the 4 dimensions, got 4"),
        ({"whitening_size": 1, "eps": 0.1}, ValueError, "must be at least 2, got 1"),
        ({"whitening_size": 8.0}, TypeError, "whitening_size must be an integer, got 8.0"),
        ({"eps": -0.1}, ValueError, "eps must be finite and zero or more, got -0.1"),
        ({"eps": 1.5}, ValueError, "eps must be at most 1, got 1.5"),
        ({"permutations": np.arange(16)}, ValueError, r"must be \[T, 16\]"),
        ({"permutations": np.zeros((1, 16), int)}, ValueError, "is not a permutation of 0 to 15"),
        ({"views": normal(1, 16, 4)}, ValueError, "views must be at least 2 of each image, got 1"),
    ],
)
def test_w_mse_refuses_what_is_undefined(change, error, message):
    arguments = {
        "views": normal(2, 16, 4),
        "permutations": np.arange(16)[None],
        "whitening_size": 8,
    }
    arguments |= change
    views, permutations = arguments.pop("views"), arguments.pop("permutations")
    with pytest.raises(error, match=message):
        losses.w_mse(views, permutations, **arguments)


def test_w_mse_whitens_few_rows_with_a_ridge():
    views, permutations = normal(2, 16, 4), np.arange(16)[None]
    loss = jax.jit(functools.partial(losses.w_mse, whitening_size=4, eps=0.01))
    assert np.isfinite(loss(views, permutations))


@pytest.mark.parametrize("devices, how", [(2, "pmap"), (8, "shard_map")])
def test_uni_grad_correlation_is_that_of_the_global_batch(devices, how):
    m1, m2 = normal(2, 16, 5)
    spread = map_rows(
        lambda m1, m2: losses.uni_grad_correlation(m1, m2, axis_name="batch"), devices, how
    )
    exact = correlation(np.asarray(m1, np.float64), np.asarray(m2, np.float64))
    np.testing.assert_allclose(losses.uni_grad_correlation(m1, m2), exact, rtol=1e-5, atol=1e-7)
    for one in spread(m1, m2).reshape(devices, 5, 5):
        np.testing.assert_allclose(one, exact, rtol=1e-5, atol=1e-7)


def test_uni_grad_correlation_is_a_constant():
    m1, m2 = normal(2, 8, 5)
    gradient = jax.grad(lambda m: jnp.sum(losses.uni_grad_correlation(m, m2) ** 2))(m1)
    assert not gradient.any()


def test_w_mse_solves_one_sub_batch_at_a_time():
    # jaxlib's batched Cholesky and triangular solves can wait for each other for ever on CPUs of
    # few cores.
    loss = jax.grad(lambda v: losses.w_mse(v, np.arange(64)[None], whitening_size=16))
    text = jax.jit(loss).lower(normal(2, 64, 8)).as_text()
    assert set(re.findall(r'num_batch_dims = "(\d)"', text)) == {"0"}


def test_uni_grad_refuses_a_correlation_of_other_dimensions():
    rows = normal(8, 5)
    with pytest.raises(
        ValueError, match=r"correlation must be \[D, D\] with D = 5, got shape \(4, 4\)"
    ):
        losses.uni_grad(rows, rows, rows, rows, jnp.eye(4))
