"""Cross-entropies of saturated inputs are zero or more, exactly, in float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import map_rows

from jaxclr import losses
from jaxclr.affinity import row_ids
from jaxclr.losses import compose

WIDTH = 16
QUEUE = np.random.default_rng(1).normal(size=(8, WIDTH)).astype(np.float32)


def every_loss(implementation):
    """The losses of one view [b, D], set against itself, that are at least 0, by name."""
    cold = {"temperature": 0.01, "implementation": implementation, "axis_name": "batch"}
    two = lambda loss, **more: lambda z: loss(z, z, **cold, **more)
    several = lambda loss: lambda z: loss([z, z, z], **cold)
    ids = functools.partial(row_ids, axis_name="batch")

    def proto_nce(z):
        prototypes = jax.lax.all_gather(z, "batch", tiled=True)
        concentrations = jnp.full(len(prototypes), 0.01)
        cold = {"implementation": implementation, "axis_name": "batch"}
        return losses.proto_nce(z, prototypes, ids(z), concentrations, ids(z)[:0], **cold)

    def adaptive_multi_head(z):
        temperatures = lambda x, y: jnp.full(jnp.broadcast_shapes(x.shape, y.shape)[:-1], 0.01)
        return losses.adaptive_multi_head(z[None], z[None], temperatures, beta=0, axis_name="batch")

    return {
        "adaptive_multi_head": adaptive_multi_head,
        "average_nt_xent": several(losses.average_nt_xent),
        "cacr_rbf": lambda z: losses.cacr_rbf([z, z], z, **cold),
        "compose.cross_entropy": two(
            losses.affinity_loss, transform=compose.both_views(compose.unit)
        ),
        "hierarchical_consistency": lambda z: losses.hierarchical_consistency(
            [z, z, z], z, QUEUE, **cold
        ),
        "info_nce": two(losses.info_nce),
        "mv_info_nce": several(losses.mv_info_nce),
        "nt_xent": two(losses.nt_xent),
        "pairwise_nt_xent": several(losses.pairwise_nt_xent),
        "poly_view": several(losses.poly_view),
        "proto_nce": proto_nce,
        "queue_info_nce": lambda z: losses.queue_info_nce(z, z, QUEUE, **cold),
        "sim_affinity": two(losses.sim_affinity),
        "sim_whitening": two(losses.sim_whitening, logit_divisor=1.0),
        "sup_con": lambda z: losses.sup_con([z, z], ids(z), **cold),
    }


# One row, whose only column is its positive; and rows that are orthogonal to each other. Unit rows
# and inner products of both are rounded.
ONE = np.random.default_rng(0).normal(size=(1, WIDTH)).astype(np.float32)
APART = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)


@pytest.mark.parametrize(
    "rows, devices, implementation",
    [
        pytest.param(rows, *case, id="-".join([name, *map(str, case)]))
        for name, rows, case in (
            ("one", ONE, (1, "streamed")),
            ("apart", APART, (1, "dense")),
            ("apart", APART, (2, "streamed")),
            ("apart", APART, (8, "ring")),
        )
    ],
)
def test_saturated_losses_are_not_negative(rows, devices, implementation):
    of_device = lambda z: {name: loss(z)[None] for name, loss in every_loss(implementation).items()}
    for name, values in map_rows(of_device, devices, "shard_map")(rows).items():
        assert (values >= 0).all() and (values < 1e-3).all(), (name, values)


def test_the_gradient_of_a_single_row_is_finite():
    """It has no negatives: the log-sum-exp of none is -inf."""
    losses_of = lambda z: jnp.stack([loss(z) for loss in every_loss("dense").values()])
    jacobian = map_rows(lambda z: jax.jacrev(losses_of)(z)[None], 1, "shard_map")(ONE)
    assert np.isfinite(jacobian).all()
