"""What is evaluated: an encoder, and the data to evaluate it on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.augment import Augmentation, DigitView, PhotoView
from jaxclr.data import Arrays, Data, Dataset, Records, Source, Split, Stream, load
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_finite, check_known
from jaxclr.evaluation.features import Features, finite_rows
from jaxclr.processes import runtime
from jaxclr.steps.examples import map_split
from jaxclr.steps.recipe import Recipe
from jaxclr.steps.scanned import represent_images
from jaxclr.steps.state import State, encoder_part
from jaxclr.steps.views import normalize_view, plain_size, plain_view

Array = jax.Array
Tree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A trained encoder, and the data on which it is evaluated.

    Attributes:
      recipe: of the run: network, augmentation and normalization.
      encoder: a module called as encoder(pixels, train), whose norms in training see the rows of
        all devices along AXIS.
      embed: representations [B, F] by the network's variables of examples; `compile_represent`.
      state: of the network.
      init_state: makes the state of the untrained network.
      dataset: its splits: train to learn from, test to evaluate on.
      data: where they come from.
      size: side in pixels at which streamed images are read; None for a split in memory.
      mesh: the devices, of all processes.
    """

    recipe: Recipe
    encoder: nn.Module
    embed: Callable[[Tree, Tree], Array]
    state: State
    init_state: Callable[[], State]
    dataset: Dataset
    data: Data | Arrays | Source
    size: int | None
    mesh: Mesh

    @property
    def train(self) -> Split | Stream | Records:
        return self.dataset.train

    @property
    def test(self) -> Split | Stream | Records | None:
        """None if there is none, as only protocols without labels allow."""
        return self.dataset.test

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, by label."""
        return self.dataset.classes

    def at(self, state: State) -> "Subject":
        """The same network in another state; nothing is compiled again."""
        return dataclasses.replace(self, state=state)

    def represent(self, split: Split | Stream | Records) -> Features:
        """Representations of a split without augmentation, norms by their running statistics.

        They stay on the devices if they fit; damaged images of a stream have the label -1.
        """
        function = functools.partial(self.embed, on_devices(self.state, self.mesh))
        return Features(*map_split(function, split, self.mesh, size=self.size))

    @functools.cached_property
    def features(self) -> tuple[Features, Features]:
        """The representations of train and test with a label, on the host of every process.

        Raises:
          UserError: as for `sharded_features`.
        """
        train, test = (features.on_host() for features in self.sharded_features)
        return train, test

    @functools.cached_property
    def sharded_features(self) -> tuple[Features, Features]:
        """Representations of train and test, embedded once, as `represent` gives them.

        Raises:
          UserError: some are not finite, or test has a class that train lacks.
        """
        train, test = map(self.represent, labeled_splits(self.dataset))
        for name, features in (("training", train), ("test", test)):
            check_finite(name, finite_rows(features.values)[features.known])
        check_known(train.labels[train.known], test.labels[test.known], self.classes)
        return train, test

    @functools.cached_property
    def variables(self) -> Tree:
        """The encoder's "params" and "batch_stats", on every device."""
        variables = on_devices(self.state, self.mesh)
        return {name: encoder_part(parts) for name, parts in variables.items()}

    def plain(self, images: Array) -> Array:
        """The encoder's input from examples without augmentation."""
        return plain_view(images, self.recipe)

    def augmented(self, keys: Array, images: Array) -> Array:
        """The same from the run's first view without changes of color, drawn by typed keys [b]."""
        light = Augmentation((_light(self.recipe.augmentation.views[0]),))
        return normalize_view(light(keys, images)[0], self.recipe)


def compile_represent(recipe: Recipe, mesh: Mesh) -> Callable[[Tree, Tree], Array]:
    """Representations, float32 [B, F], as a function of the network's variables and examples.

    Variables are on every device; examples and representations are sharded by rows.
    """
    return map_rows(functools.partial(represent_images, recipe=recipe), mesh)


def map_rows(function: Callable[[Tree, Tree], Array], mesh: Mesh) -> Callable[[Tree, Tree], Array]:
    """A function of variables and of rows, whose rows each device maps by itself; jitted."""
    rows = P(mesh.axis_names)
    specs = {"in_specs": (P(), rows), "out_specs": rows, "check_vma": False}
    return jax.jit(jax.shard_map(function, mesh=mesh, **specs))


def on_devices(state: State, mesh: Mesh) -> Tree:
    """The network's variables on every device."""
    everywhere = NamedSharding(mesh, P())

    def put(leaf: Any) -> Array:
        if isinstance(leaf, Array) and leaf.sharding.device_set == everywhere.device_set:
            return jax.device_put(leaf, everywhere)
        return runtime.replicate(leaf, mesh)

    return jax.tree.map(put, {"params": state.params, "batch_stats": state.batch_stats})


def on_one_device(state: State) -> Tree:
    """The network's variables on one device of this process: no collective is needed there."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return jax.device_put(jax.device_get(variables), jax.local_devices()[0])


class Evaluated(NamedTuple):
    """Data to evaluate on, as in `Subject`."""

    dataset: Dataset
    data: Data | Arrays | Source
    size: int | None


def load_like(
    own: Data | Arrays | Source, data: Data | Arrays | Source, augmentation: Augmentation
) -> Evaluated:
    """Loads data to evaluate on, which are preprocessed like those that a run was trained on.

    Args:
      own: the run's data, which are not opened.
      data: what to evaluate on: the same, or others.
      augmentation: of the run.

    Raises:
      UserError: the data cannot be loaded, or have other channels than the encoder takes.
    """
    if (data.mean, data.std) not in ((None, None), (own.mean, own.std)):
        raise UserError(
            "Images are normalized as the run's own were; leave --data.mean and --data.std out."
        )
    data = dataclasses.replace(data, mean=own.mean, std=own.std)
    dataset = load(dataclasses.replace(data, mean=None, std=None))
    check_channels(dataset.name, dataset, None if own.mean is None else len(own.mean))
    size = plain_size(getattr(data, "image_size", None), augmentation)
    if isinstance(dataset.train, Stream) and size is None:
        raise UserError(
            f"'{dataset.name}' is streamed, and the run does not tell the size of its images; set "
            "--data.image-size."
        )
    return Evaluated(dataset, data, size)


def check_channels(source: str, dataset: Dataset, wanted: int | None) -> None:
    """Raises UserError unless images have the channels that the encoder takes."""
    got = dataset.train.channels
    if got == wanted:
        return
    if got is None or wanted is None:
        kind = lambda channels: "other data than images" if channels is None else "images"
        raise UserError(
            f"'{source}' holds {kind(got)}, the encoder takes {kind(wanted)}; take other data."
        )
    channels = {1: "gray", 3: "rgb"}.get(wanted)
    remedy = f"set --data.channels {channels}" if channels else "take other data"
    raise UserError(
        f"'{source}' has images of {got} channel(s), the encoder takes {wanted}; {remedy}."
    )


def labeled_splits(dataset: Dataset) -> tuple[Split | Stream | Records, Split | Stream | Records]:
    """Train and test, if both have labels.

    Raises:
      UserError: there is no test split, or no labels.
    """
    if dataset.test is None or not dataset.train.labeled or not dataset.test.labeled:
        raise UserError(
            f"'{dataset.name}' has no labeled test split, so there is nothing to evaluate "
            "against. Give images in class sub-folders, or labels, and a test split or "
            "--data.test-fraction."
        )
    return dataset.train, dataset.test


def _light(view: Any) -> Any:
    """A view of this library without its changes of color; another view as it is."""
    if isinstance(view, PhotoView):
        return dataclasses.replace(view, jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0)
    if isinstance(view, DigitView):
        return dataclasses.replace(view, erase=0.0, noise=0.0)
    return view
