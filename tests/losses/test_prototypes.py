"""What is particular to losses against prototypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import unit
from distributed import map_rows
from entries.prototypes import sinkhorn

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")


def cosines(*shape):
    return jnp.asarray(unit(np.random.default_rng(0).normal(size=shape)), jnp.float32)


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_scaling_by_sums(iterations):
    scores = cosines(12, 5)
    found = losses.sinkhorn(scores, iterations=iterations)
    exact = sinkhorn(np.asarray(scores, np.float64), iterations=iterations)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("devices, how", [(2, "pmap"), (8, "shard_map")])
def test_sinkhorn_is_over_the_global_batch(devices, how):
    scores = cosines(16, 5)
    spread = map_rows(lambda s: losses.sinkhorn(s, axis_name="batch"), devices, how)
    np.testing.assert_allclose(spread(scores), losses.sinkhorn(scores), rtol=1e-5, atol=1e-7)


def test_sinkhorn_uses_prototypes_alike_however_sharp():
    for epsilon in (0.05, 1e-3):
        found = losses.sinkhorn(cosines(12, 4), epsilon=epsilon, iterations=1000)
        np.testing.assert_allclose(jnp.sum(found, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(jnp.sum(found, axis=0), 3, rtol=1e-2)


def test_sinkhorn_is_a_constant():
    assert not jax.grad(lambda s: jnp.sum(losses.sinkhorn(s) ** 2))(cosines(8, 3)).any()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"epsilon": 0.0}, ValueError, "epsilon must be finite and more than zero, got 0.0"),
        ({"iterations": 0}, ValueError, "iterations must be at least 1, got 0"),
        ({"iterations": 2.5}, TypeError, "iterations must be an integer, got 2.5"),
    ],
)
def test_sinkhorn_refuses_bad_hyper_parameters(arguments, error, message):
    with pytest.raises(error, match=message):
        losses.sinkhorn(cosines(8, 3), **arguments)


@pytest.mark.parametrize("crops", [(), (0, 0), (0, 2), (-1,)])
def test_swav_refuses_crops_that_are_none(crops):
    with pytest.raises(ValueError, match="assign_crops must be different crops of 0 to 1"):
        losses.swav(cosines(2, 8, 3), assign_crops=crops)


def test_swav_calls_its_scores_by_their_name():
    with pytest.raises(ValueError, match="scores must be at least 2 of each image, got 1"):
        losses.swav(cosines(1, 8, 3))


def test_swav_wants_earlier_scores_of_each_crop_that_is_assigned():
    with pytest.raises(
        ValueError, match="earlier must hold scores for each of the 2 crops to assign, got 1"
    ):
        losses.swav(cosines(3, 8, 3), earlier=cosines(1, 8, 3))
    with pytest.raises(ValueError, match=r"earlier must be \[m, K\] with K = 3"):
        losses.swav(cosines(3, 8, 3), earlier=cosines(2, 8, 4))


def ids(*values):
    return jnp.asarray(values, jnp.int32)


def proto_nce(assignments, negatives):
    concentrations = jnp.full(6, 0.3)
    return losses.proto_nce(cosines(4, 3), cosines(6, 3), assignments, concentrations, negatives)


def test_proto_nce_counts_each_prototype_once():
    loss, assignments = jax.jit(proto_nce), ids(0, 1, 1, 2)
    value = loss(assignments, ids(3, 3, 4, 4))
    np.testing.assert_allclose(loss(assignments, ids(3, 1, 4, 4)), value, rtol=1e-6)
    assert abs(loss(assignments, ids(3, 3, 5, 5)) - value) > 1e-3


def test_proto_nce_may_have_the_batch_alone():
    alone = jax.jit(proto_nce)(ids(0, 0, 0, 0), jnp.zeros(0, jnp.int32))
    np.testing.assert_allclose(alone, 0, atol=1e-6)


def test_unknown_prototypes_are_refused():
    with pytest.raises(ValueError, match="assignments must be 0 to 5, got 6"):
        proto_nce(ids(0, 6, 1, 2), ids(3))
    with pytest.raises(ValueError, match="negatives must be 0 to 5, got -1"):
        proto_nce(ids(0, 5, 1, 2), ids(3, -1))
    with pytest.raises(TypeError, match="negatives must be an array of integers, got float32"):
        proto_nce(ids(0, 5, 1, 2), jnp.ones(2))
    with pytest.raises(ValueError, match="negatives must be one list of integers"):
        proto_nce(ids(0, 5, 1, 2), jnp.int32(3))
    with pytest.raises(ValueError, match="assignments must be 0 to 2, got 3"):
        losses.pauc(cosines(2, 3), cosines(2, 3), cosines(3, 3), ids(0, 3))
    with pytest.raises(ValueError, match=r"concentrations must be \[K\] with K = 6"):
        losses.proto_nce(cosines(1, 3), cosines(6, 3), ids(0), jnp.ones(5), ids(1))


def test_pauc_of_one_prototype_is_finite():
    q1, q2 = cosines(2, 4, 3)
    loss = jax.value_and_grad(lambda q: losses.pauc(q, q2, cosines(3, 3), ids(1, 1, 1, 1)))
    value, gradient = jax.jit(loss)(q1)
    assert np.isfinite(value) and np.isfinite(gradient).all()
