"""The whole step, with augmentation and synchronized norms, is the same on any devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import PAIRWISE, REST
from tiny import QUICK, distance, run_steps, tiny_config

from jaxclr.augment import AUGMENTATIONS
from jaxclr.methods import METHODS

# A step takes long to compile. The short suite has the digits' whole augmentation and both mappers
# for one method, noise alone and eight devices for the others of QUICK, and of the rest objective
# and state alone (tests/methods/test_global_batch.py).
AUGMENTED = "sim_affinity"
SHORT = [(name, PAIRWISE if name == AUGMENTED else PAIRWISE[1:]) for name in QUICK]
FULL = [pytest.param(name, (*PAIRWISE, *REST), marks=pytest.mark.full) for name in METHODS]


@pytest.mark.parametrize("method, grid", [*SHORT, *FULL], ids=str)
def test_three_steps_in_float64(method, grid):
    config = tiny_config(method)
    if method == AUGMENTED:
        config = dataclasses.replace(config, augmentation=AUGMENTATIONS["digits"])
    with jax.enable_x64(True):
        before, one, losses = run_steps(
            config, devices=1, how="shard_map", steps=3, dtype=jnp.float64
        )
        assert jax.tree.leaves(one.params)[0].dtype == np.float64
        assert distance(one.params, before) > 1e-3
        for devices, how in grid:
            _, other, other_losses = run_steps(
                config, devices=devices, how=how, steps=3, dtype=jnp.float64
            )
            np.testing.assert_allclose(other_losses, losses, rtol=1e-9)
            for part in ("params", "batch_stats", "target_params", "target_batch_stats"):
                assert distance(getattr(one, part), getattr(other, part)) < 1e-9, (part, how)
            assert one.step == other.step == 3


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_one_step_in_float32(method):
    config = tiny_config(method)
    before, one, losses = run_steps(config, devices=1, how="shard_map", steps=1)
    _, other, other_losses = run_steps(config, devices=8, how="shard_map", steps=1)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    assert distance(one.params, other.params) < 1e-4 * distance(one.params, before)
