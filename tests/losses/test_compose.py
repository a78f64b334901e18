"""Known objectives as settings of `affinity_loss`, equal to them in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr import losses
from jaxclr.losses import compose
from jaxclr.losses.compose import affinity_loss, both_views, of_embeddings, unit, whitened

pytestmark = pytest.mark.usefixtures("strict_promotion")
GENERATOR = np.random.default_rng(0)
FOUR = [GENERATOR.normal(size=(16, 6)) for _ in range(4)]
SOLO = np.arange(16)[None, :]
partial = functools.partial
stop = jax.lax.stop_gradient

PAIRS = {
    "info_nce": (
        partial(losses.info_nce, temperature=0.2),
        partial(affinity_loss, temperature=0.2),
    ),
    "moco_v3": (
        lambda q1, q2, k1, k2: (
            0.4 * sum(losses.info_nce(q, k, temperature=0.2) for q, k in ((q1, k2), (q2, k1)))
        ),
        lambda q1, q2, k1, k2: (
            0.4 * sum(affinity_loss(q, k, temperature=0.2) for q, k in ((q1, k2), (q2, k1)))
        ),
    ),
    "nt_xent": (
        partial(losses.nt_xent, temperature=0.5),
        partial(affinity_loss, transform=both_views(unit), temperature=0.5),
    ),
    "sim_affinity": (
        partial(losses.sim_affinity, temperature=0.2),
        partial(
            affinity_loss, regularizer=compose.asymmetry, regularizer_weight=0.01, temperature=0.2
        ),
    ),
    "sim_whitening": (
        partial(losses.sim_whitening, temperature=0.5),
        partial(
            affinity_loss,
            transform=whitened,
            regularizer=compose.asymmetry,
            regularizer_weight=0.01,
            temperature=8.0,
        ),
    ),
    "w_mse, Euclidean": (
        lambda q, k: 6 * losses.w_mse([q, k], SOLO, whitening_size=16, normalize=False),
        partial(
            affinity_loss,
            transform=partial(whitened, eps=0.0, normalize=False, per_view=True),
            readout=compose.squared_distance,
        ),
    ),
    "co2": (
        lambda q, k: (
            losses.info_nce(q, k, temperature=0.2) + 0.3 * losses.co2(q, k, temperature=0.5)
        ),
        partial(
            affinity_loss,
            regularizer=of_embeddings(losses.co2, temperature=0.5),
            regularizer_weight=0.3,
            temperature=0.2,
        ),
    ),
    "mio": (
        partial(losses.mio, mse_weight=6.0),
        partial(
            affinity_loss,
            transform=both_views(unit),
            readout=compose.binary,
            regularizer=compose.squared_distance,
            temperature=0.5,
        ),
    ),
    "sim_trace": (
        losses.sim_trace,
        partial(
            affinity_loss, transform=partial(whitened, stop_statistics=True), readout=compose.trace
        ),
    ),
    "byol": (
        losses.byol,
        lambda p1, p2, t1, t2: sum(
            affinity_loss(p, stop(t), readout=compose.squared_distance)
            for p, t in ((p1, t2), (p2, t1))
        ),
    ),
    "sim_siam": (
        losses.sim_siam,
        lambda p1, p2, z1, z2: sum(
            affinity_loss(p, stop(z), readout=compose.trace) / 2 for p, z in ((p1, z2), (p2, z1))
        ),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_known_objectives_are_settings(name):
    direct, composed = PAIRS[name]
    with jax.enable_x64(True):
        count = 4 if name in ("moco_v3", "byol", "sim_siam") else 2
        arrays = [jnp.asarray(a) for a in FOUR[:count]]
        places = tuple(range(count))
        value, gradients = jax.jit(jax.value_and_grad(direct, places))(*arrays)
        other_value, other_gradients = jax.jit(jax.value_and_grad(composed, places))(*arrays)
    np.testing.assert_allclose(other_value, value, rtol=1e-10)
    for one, other in zip(gradients, other_gradients, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-8, atol=1e-12)


def test_bad_settings_are_refused():
    q = jnp.ones((4, 3))
    with pytest.raises(ValueError, match="temperature must be finite and more than zero, got 0"):
        affinity_loss(q, q, temperature=0)
    with pytest.raises(
        ValueError, match="regularizer_weight must be finite and zero or more, got -1"
    ):
        affinity_loss(q, q, regularizer=compose.asymmetry, regularizer_weight=-1)
    with pytest.raises(ValueError, match="eps must be finite and zero or more"):
        affinity_loss(q, q, transform=partial(whitened, eps=-0.1))
