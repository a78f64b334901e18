"""What is never formed: read from the compiler, which repeats itself exactly."""

import jax
import jax.numpy as jnp
import pytest

from jaxclr import losses

ROWS, WIDTH = 4096, 32


@pytest.mark.parametrize("loss", [losses.sim_trace, losses.symmetric_loss])
def test_no_matrix_of_the_batch_is_formed(loss):
    views = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(views, views).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    assert temporaries < 16 * views.size * 4 < ROWS * ROWS * 4 / 4
