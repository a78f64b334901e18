"""What is never formed: read from the compiler, which repeats itself exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import mesh
from jax.sharding import PartitionSpec as P

from jaxclr import losses

ROWS, WIDTH = 4096, 32


@pytest.mark.parametrize("loss", [losses.sim_trace, losses.symmetric_loss])
def test_no_matrix_of_the_batch_is_formed(loss):
    views = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(views, views).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries < 16 * views.size * 4 < ROWS * ROWS * 4 / 4


def temporaries(loss, rows, width, devices):
    """Bytes of temporaries on each device for value and gradient of the global batch."""
    share = jax.value_and_grad(functools.partial(loss, axis_name="batch"), (0, 1))

    def step(q, k):
        value, gradients = share(q, k)
        return value[None], gradients

    mapped = jax.shard_map(
        step, mesh=mesh(devices), in_specs=P("batch"), out_specs=P("batch"), check_vma=False
    )
    views = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    return jax.jit(mapped).lower(views, views).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("loss", [losses.info_nce, losses.clip, losses.siglip])
@pytest.mark.parametrize("implementation, mebibytes", [("streamed", 90), ("ring", 40)])
def test_memory_of_a_batch_of_32768_on_8_devices(loss, implementation, mebibytes):
    loss = functools.partial(loss, temperature=0.1, implementation=implementation)
    assert temporaries(loss, 32768, 256, 8) <= mebibytes * 2**20


@pytest.mark.parametrize(
    "loss", [losses.nt_xent, losses.info_nce, losses.sim_affinity, losses.sim_whitening]
)
def test_auto_forms_no_logits_of_a_large_batch(loss):
    assert temporaries(loss, 16384, 16, 1) < 16384 * 16384 * 4 / 16


def test_a_batch_of_a_million_compiles_into_a_gibibyte():
    rows = jax.ShapeDtypeStruct((2**20, 64), jnp.bfloat16)
    loss = functools.partial(losses.info_nce, temperature=0.1)
    compiled = jax.jit(loss).lower(rows, rows).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 2**30


@pytest.mark.parametrize("implementation", ["streamed", "ring"])
def test_keys_without_gradient_cost_no_product(implementation):
    """Of four products for value and gradient, one is for the keys."""
    q, k = jax.random.normal(jax.random.key(0), (2, 300, WIDTH))
    options = {"temperature": 0.2, "implementation": implementation, "axis_name": "batch"}
    learned = lambda q, k: losses.info_nce(q, k, **options)
    stopped = lambda q, k: losses.info_nce(q, jax.lax.stop_gradient(k), **options)
    found = {}
    for name, share in (("learned", learned), ("stopped", stopped)):
        spread = P("batch")
        gradient = jax.shard_map(
            jax.grad(share, (0, 1)),
            mesh=mesh(2),
            in_specs=spread,
            out_specs=spread,
            check_vma=False,
        )
        compiled = jax.jit(gradient).lower(q, k).compile()
        found[name] = compiled(q, k), compiled.cost_analysis()["flops"]
    (gradients, flops), (of_stopped, flops_of_stopped) = found["learned"], found["stopped"]
    assert flops_of_stopped < 0.85 * flops
    np.testing.assert_allclose(of_stopped[0], gradients[0], rtol=1e-5, atol=1e-8)
    assert not np.any(of_stopped[1])
