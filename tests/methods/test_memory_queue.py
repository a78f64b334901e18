"""The queue against NumPy on any number of devices; sizes that do not fit are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import GRID, map_rows

from jaxclr.errors import UserError
from jaxclr.methods import Sizes
from jaxclr.methods.memory_queue import enqueue, init_queue

BATCH, WIDTH = 8, 3
SIZES = Sizes(images=100, classes=0, batch=BATCH, representation=5, embedding=WIDTH)
BATCHES = np.random.default_rng(0).normal(size=(4, BATCH, WIDTH)).astype(np.float32)


def numpys(first, batches):
    rows = np.array(first, np.float64)
    for index, batch in enumerate(batches):
        places = (index * BATCH + np.arange(BATCH)) % len(rows)
        rows[places] = batch / np.linalg.norm(batch.astype(np.float64), axis=1, keepdims=True)
    return rows


@pytest.mark.parametrize("devices, how", GRID)
def test_the_oldest_rows_give_way_on_any_devices(devices, how):
    first = init_queue(jax.random.key(0), 3 * BATCH, SIZES)

    def four_batches(batches):
        queue = first
        for batch in batches:
            queue = enqueue(queue, batch, "batch")
        return queue.rows[None], queue.oldest[None]

    rows, oldest = map_rows(four_batches, devices, how, spread=(1,))(jnp.asarray(BATCHES))
    for each in rows:
        np.testing.assert_allclose(each, numpys(first.rows, BATCHES), atol=1e-6)
    assert (oldest == BATCH).all() and len(oldest) == devices


def test_it_starts_with_random_directions():
    one, other = (init_queue(jax.random.key(seed), 16 * BATCH, SIZES).rows for seed in (0, 1))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
    assert np.abs(one.mean(0)).max() < 0.2 and not np.allclose(one, other)


def test_rows_of_another_type_are_unit_in_the_queues():
    first = init_queue(jax.random.key(0), BATCH, SIZES)
    queue = enqueue(first, jnp.asarray(BATCHES[0], jnp.bfloat16), None)
    assert queue.rows.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(queue.rows, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("size, fit", [(20, 16), (4, 8), (0, 8)])
def test_sizes_that_are_no_multiple_of_the_batch_are_refused(size, fit):
    with pytest.raises(UserError, match=f"multiple of the batch of 8, got {size}; set {fit},"):
        init_queue(jax.random.key(0), size, SIZES)
