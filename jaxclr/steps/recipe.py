"""The recipe of a run: what a step needs to know and never changes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from jaxclr.augment import Augmentation
from jaxclr.methods import Method, Network

Array = jax.Array

AXIS = "batch"  # the mapped axis over which a batch is spread

# Streams of keys beside those of the steps. Step t draws from fold_in(key(seed), t), and no run has so many steps.
PARAMETERS = 0xA110C000
METHOD = 0xA110C001
REFRESH = 0xA110C002


class Recipe(NamedTuple):
    """What a step needs to know and never changes."""

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

    @property
    def steps_per_epoch(self) -> int:
        """The last incomplete batch of an epoch is left out."""
        return self.images // self.batch_size


def with_whole_batch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A per-device function over AXIS, run where one device has all rows."""
    mapped = jax.vmap(function, in_axes=None, axis_size=1, axis_name=AXIS)
    return lambda *args: jax.tree.map(lambda leaf: leaf[0], mapped(*args))


def step_key(seed: int, step: Array) -> Array:
    """The key of a step, from which its images' keys are folded by their places in the global batch."""
    return jax.random.fold_in(jax.random.key(seed), step)
