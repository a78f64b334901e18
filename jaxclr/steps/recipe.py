"""The recipe of a run: what a training step needs and does not change."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxclr.augment import Augmentation
from jaxclr.methods import Method, Network
from jaxclr.steps.sharding import StateSharding

Array = jax.Array

AXIS = "batch"  # the mapped axis over which a batch is spread

# Folded into key(seed), as step numbers are; no run has this many steps.
PARAMETERS = 0xA110C000
METHOD = 0xA110C001
REFRESH = 0xA110C002


class Recipe(NamedTuple):
    """What a training step needs and does not change.

    `extensions` holds the (step, number of steps before it) of each extension of the run, by step.
    """

    method: Method
    network: Network
    augmentation: Augmentation
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    images: int
    classes: int
    batch_size: int
    micro_batches: int
    steps: int
    seed: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    freeze: tuple[str, ...] = ()  # patterns of variables that are not trained
    extensions: tuple[tuple[int, int], ...] = ()
    sharding: StateSharding = "replicated"  # of the state over the devices

    @property
    def steps_per_epoch(self) -> int:
        """Steps in an epoch, which omits its last incomplete batch."""
        return self.images // self.batch_size

    def steps_at(self, step: Array) -> int | Array:
        """The number of steps that schedules refer to at a step; smaller before an extension."""
        steps = self.steps
        for at, before in reversed(self.extensions):
            steps = jnp.where(step < at, before, steps)
        return steps


def with_whole_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A per-device function over AXIS, run where one device has all rows."""
    mapped = jax.vmap(function, in_axes=None, axis_size=1, axis_name=AXIS)
    return lambda *args: jax.tree.map(lambda leaf: leaf[0], mapped(*args))


def step_key(seed: int, step: Array) -> Array:
    """The key of a step; example i of the global batch uses `fold_in(step_key, i)`."""
    return jax.random.fold_in(jax.random.key(seed), step)
