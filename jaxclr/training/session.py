"""A session: the data, devices and recipe that a configuration specifies."""

import dataclasses
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr import trees
from jaxclr.augment import Augmentation, PhotoView
from jaxclr.augment.image_views import takes_color
from jaxclr.data import Dataset, Records, Split, Stream, channel_statistics, load
from jaxclr.data.pieces import end_if_worker
from jaxclr.encoders.custom import build_encoder, towers_of
from jaxclr.errors import UserError
from jaxclr.evaluation.subject import Subject, compile_represent
from jaxclr.processes import runtime
from jaxclr.runs.config import Config, Extension, to_json
from jaxclr.steps.dry_run import check_parts
from jaxclr.steps.examples import labels_of
from jaxclr.steps.optimizers import extended, make_optimizer, peak_rate, warmup_cosine
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.sharding import shardings, state_specs
from jaxclr.steps.state import State, image_examples, init_state
from jaxclr.steps.views import plain_size

Tree = Any


class Session(NamedTuple):
    """A configuration with its data, on the available devices.

    Attributes:
      config: the configuration, with mean and standard deviation of the channels filled in.
      dataset: its splits.
      mesh: the devices.
      recipe: the recipe of a step.
      notes: sentences for the user on what was chosen or measured.
    """

    config: Config
    dataset: Dataset
    mesh: Mesh
    recipe: Recipe
    notes: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training data."""
        return self.recipe.steps_per_epoch

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.steps

    @property
    def plain_size(self) -> int | None:
        """Side of streamed images without augmentation; None if it is not specified."""
        return plain_size(getattr(self.config.data, "image_size", None), self.config.augmentation)

    def extended(self, extensions: tuple[Extension, ...]) -> "Session":
        """The same session with the extensions that its run had before."""
        if extensions == self.config.extensions:
            return self
        config = dataclasses.replace(self.config, extensions=extensions)
        recipe = make_recipe(config, images=self.recipe.images, classes=self.recipe.classes)
        return self._replace(config=config, recipe=recipe)

    def example_shapes(self, count: int) -> Tree:
        """Shapes and types of `count` training examples, the input of the views."""
        return example_shapes(self.dataset.train, self.config, count)

    def init_state(self) -> State:
        """The state before the first step, on the devices."""
        # Computed on all devices: an array of one device cannot be moved to other processes.
        return jax.jit(self._init_state, out_shardings=self.shardings())()

    def state_shape(self) -> State:
        """Shapes, types and layout of a state, without its arrays."""
        laid = lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        )
        return jax.tree.map(laid, jax.eval_shape(self._init_state), self.shardings())

    def shardings(self) -> State:
        """The sharding of each leaf of a state."""
        shape = jax.eval_shape(self._init_state)
        return shardings(state_specs(shape, self.recipe.sharding, self.mesh), self.mesh)

    def whole(self, state: State) -> State:
        """A state whose parameters are whole on every device; all processes must call this."""
        if self.recipe.sharding != "all":
            return state
        everywhere = NamedSharding(self.mesh, P())
        gathered = jax.jit(lambda params: params, out_shardings=everywhere)(state.params)
        return state.replace(params=gathered)

    def _init_state(self) -> State:
        return init_state(self.recipe, self.example_shapes(1))

    def subject(self, state: State) -> Subject:
        """The network in this state and the data, for evaluation."""
        return Subject(
            recipe=self.recipe,
            encoder=build_encoder(towers_of(self.config.encoder)[0], AXIS),
            embed=compile_represent(self.recipe, self.mesh),
            state=self.whole(state),
            init_state=lambda: self.whole(self.init_state()),
            dataset=self.dataset,
            data=self.config.data,
            size=self.plain_size,
            mesh=self.mesh,
        )


def example_shapes(train: Split | Stream | Records, config: Config, count: int) -> Tree:
    """Shapes and types of `count` examples of a split, the input of the views."""
    if isinstance(train, Stream):
        side = _side(config)
        one = image_examples(side, side, train.channels)
    else:
        one = train.example if isinstance(train, Records) else train.examples
    kind = lambda leaf: jax.ShapeDtypeStruct(
        (count, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
    )
    return jax.tree.map(kind, one)


def open_session(config: Config) -> Session:
    """Loads the data, measures its channels if need be, and checks that the parts fit each other.

    Raises:
      UserError: the data cannot be loaded; batch, data, parts and devices do not fit each other; or
        processes differ in them.
    """
    end_if_worker()
    session = runtime.run_on_all(lambda: _open(config))
    runtime.check_same(lambda: to_json(session.config), "configurations or images")
    return session


def _open(config: Config) -> Session:
    devices = runtime.devices()
    if config.mapper == "pmap" and not runtime.is_single():
        raise UserError(
            f"--mapper pmap runs in one process, this is one of {jax.process_count()}; leave it "
            "out: shard_map gives the same."
        )
    parts = len(devices) * config.micro_batches
    if config.batch_size % parts:
        each = f" of {config.micro_batches} micro-batches each" * (config.micro_batches > 1)
        raise UserError(
            f"batch_size {config.batch_size} cannot be spread evenly over {len(devices)} "
            f"devices{each}; set a multiple of {parts}."
        )
    dataset = load(config.data)
    train, notes = dataset.train, list(dataset.notes)
    kind, source = (
        "examples" if train.channels is None else "images",
        getattr(config.data, "source", dataset.name),
    )
    if isinstance(train, Stream):
        _check_crops(config.augmentation)
        notes.append(f"Images are streamed from their files: {train.why}.")
        transparent, sampled = train.count_alpha()
        if transparent:
            notes.append(
                f"{transparent} of a sample of {sampled} images have an alpha channel; transparent "
                f"pixels are composed on a background of gray {train.data.background} "
                "(data.background)."
            )
    elif isinstance(train, Records):
        notes.append(f"{kind.capitalize()} are streamed: {train.why}.")
    else:
        notes.append(
            f"{kind.capitalize()} are in memory, and a copy of those for training is on every "
            "device."
        )
    if config.batch_size > train.size:
        raise UserError(
            f"batch_size {config.batch_size} is larger than the {train.size} training {kind} of "
            f"'{source}'; set --batch-size to {train.size} or less."
        )
    if config.method.needs_labels and not train.labeled:
        raise UserError(
            f"{type(config.method).__name__} learns from labels, and '{source}' has none; "
            "give images in class sub-folders or labels beside them, or choose another --method."
        )
    if config.method.needs_labels and (missing := _unlabeled(train)):
        raise UserError(
            f"{type(config.method).__name__} learns from labels, and {missing} of the "
            f"{train.size} training {kind} of '{source}' have none (-1); leave them out, or choose "
            "another --method."
        )
    if config.method.needs_labels:
        config.method.check_classes(dataset.classes)
    if train.channels is not None and config.data.mean is None:
        if isinstance(train, Split):
            images = trees.images_of(train.examples)
            assert images is not None  # examples with channels are images
        else:
            images = train.sample(_side(config)) if isinstance(train, Stream) else train.sample()
            notes.append(
                f"Channel means and deviations are those of a sample of {len(images)} images."
            )
        mean, std = channel_statistics(images)
        data = dataclasses.replace(config.data, mean=mean, std=std)
        config = dataclasses.replace(config, data=data)
    given = config.data.mean
    if train.channels is None and given is not None:
        raise UserError(
            f"data.mean is for images, and '{source}' has other data; leave mean and std out."
        )
    if train.channels is not None and given is not None and len(given) != train.channels:
        raise UserError(
            f"data.mean has {len(given)} numbers, the images {train.channels} channels; give one "
            "per channel."
        )
    if train.channels not in (None, 3) and any(map(takes_color, config.augmentation.views)):
        notes.append(
            f"Images have {train.channels} channel(s), so changes of saturation, hue and to "
            "grayscale are left out."
        )
    mesh = runtime.device_mesh(AXIS)
    recipe = make_recipe(config, images=train.size, classes=len(dataset.classes))
    session = Session(config, dataset, mesh, recipe, tuple(notes))
    check_parts(config, recipe, session.example_shapes(config.batch_size), devices=len(devices))
    return session


def _unlabeled(train: Split | Stream | Records) -> int:
    """How many examples have the label -1; 0 for a stream, whose feed checks each batch."""
    return 0 if isinstance(train, Stream) else int((labels_of(train) < 0).sum())


def _check_crops(augmentation: Augmentation) -> None:
    """Refuses views without a crop: streamed images are cropped on the host."""
    for view in augmentation.views:
        if not isinstance(view, PhotoView):
            raise UserError(
                f"{type(view).__name__} takes uncropped images, and a stream gives crops. Choose "
                "an --augmentation of PhotoViews, or set --data.streaming never (and "
                "--data.memory-limit, if need be)."
            )


def _side(config: Config) -> int:
    """Side of streamed images without augmentation."""
    side = plain_size(getattr(config.data, "image_size", None), config.augmentation)
    assert side is not None  # views of a stream are PhotoViews, which have a size
    return side


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """The number of steps of a run."""
    return config.epochs * steps_per_epoch if config.steps is None else config.steps


def _warmup_steps(config: Config, steps_per_epoch: int) -> int:
    """The number of steps of the warm-up.

    Raises:
      UserError: the run has fewer.
    """
    warmup, steps = config.warmup_steps, total_steps(config, steps_per_epoch)
    if warmup is None:
        warmup = round(config.warmup_epochs * steps_per_epoch)
    if warmup > steps:
        raise UserError(
            f"The warm-up has {warmup} steps, and the run {steps}; set --warmup-steps to {steps} "
            "or less."
        )
    return warmup


def make_recipe(config: Config, *, images: int, classes: int) -> Recipe:
    """The recipe of a configuration with data.mean and data.std filled in.

    Args:
      config: the configuration of the run.
      images: number of training images.
      classes: number of classes; 0 without labels.
    """
    steps_per_epoch = images // config.batch_size
    steps = total_steps(config, steps_per_epoch)
    if steps >= 2**31:
        raise UserError(f"{config.epochs} epochs are {steps} steps; a run has less than 2^31.")
    peak = peak_rate(config.optimizer) * config.batch_size / 256
    warmup = _warmup_steps(config, steps_per_epoch)
    schedule = extended(
        lambda steps: warmup_cosine(peak, warmup_steps=warmup, steps=steps),
        steps,
        config.extensions,
    )
    fixed = ("encoder/patch_embedding",) * getattr(config.encoder, "frozen_patch_embedding", False)
    optimizer = make_optimizer(
        config.optimizer,
        schedule=schedule,
        clip_norm=config.clip_norm,
        constant_rate=config.method.constant_rate,
        freeze=config.freeze,
        peak=peak,
    )
    return Recipe(
        method=config.method,
        network=config.method.network(config.encoder, AXIS),
        augmentation=config.augmentation,
        optimizer=optimizer,
        schedule=schedule,
        images=images,
        classes=classes,
        batch_size=config.batch_size,
        micro_batches=config.micro_batches,
        steps=steps,
        seed=config.seed,
        mean=config.data.mean,
        std=config.data.std,
        freeze=config.freeze + fixed,
        extensions=config.extensions,
        sharding=config.state_sharding,
    )
