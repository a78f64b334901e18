"""What a configuration becomes: data in memory, devices, and the recipe of a step."""

import dataclasses
from typing import NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.training.config import Config
from jaxclr.data import Dataset, channel_statistics, load
from jaxclr.errors import UserError
from jaxclr.training.optimizers import make_optimizer, warmup_cosine
from jaxclr.training.step import Recipe, State, init_state

AXIS = "batch"


class Session(NamedTuple):
    """A configuration that is ready to run on the devices at hand."""

    config: Config
    dataset: Dataset
    mesh: Mesh
    recipe: Recipe

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train.images) // self.config.batch_size

    @property
    def steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch

    def init_state(self) -> State:
        """The state before the first step, on every device."""
        state = init_state(self.recipe, self.dataset.train.images.shape[1:])
        return jax.device_put(state, NamedSharding(self.mesh, P()))


def open_session(config: Config) -> Session:
    """Loads the data, measures its channels where the configuration leaves that open, and checks what fits what.

    Raises:
      UserError: the data cannot be had, or batch, data and devices do not fit each other.
    """
    devices = jax.devices()
    if config.batch_size % len(devices):
        raise UserError(
            f"batch_size {config.batch_size} cannot be spread evenly over {len(devices)} devices; "
            f"set a multiple of {len(devices)}."
        )
    dataset = load(config.data)
    images = dataset.train.images
    if config.batch_size > len(images):
        raise UserError(
            f"batch_size {config.batch_size} is larger than the {len(images)} training images of "
            f"'{config.data.source}'; set --batch-size to {len(images)} or less."
        )
    if config.data.mean is None:
        mean, std = channel_statistics(images)
        data = dataclasses.replace(config.data, mean=mean, std=std)
        config = dataclasses.replace(config, data=data)
    if len(config.data.mean) != images.shape[-1]:
        raise UserError(
            f"data.mean has {len(config.data.mean)} numbers, the images {images.shape[-1]} channels; give one per channel."
        )
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    return Session(config, dataset, mesh, make_recipe(config, len(images)))


def make_recipe(config: Config, images: int) -> Recipe:
    steps_per_epoch = images // config.batch_size
    steps = config.epochs * steps_per_epoch
    peak = config.optimizer.learning_rate * config.batch_size / 256
    warmup = round(config.warmup_epochs * steps_per_epoch)
    schedule = warmup_cosine(peak, warmup_steps=warmup, steps=steps)
    optimizer = make_optimizer(
        config.optimizer,
        schedule=schedule,
        clip_norm=config.clip_norm,
        constant_rate=config.method.constant_rate,
        frozen=("patch_embedding",) if getattr(config.encoder, "frozen_patch_embedding", False) else (),
        peak=peak,
    )
    return Recipe(
        method=config.method,
        network=config.method.network(config.encoder, AXIS),
        augmentation=config.augmentation,
        optimizer=optimizer,
        schedule=schedule,
        steps=steps,
        seed=config.seed,
        mean=config.data.mean,
        std=config.data.std,
    )
