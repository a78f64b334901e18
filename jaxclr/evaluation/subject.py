"""What is evaluated: an encoder, and the data to evaluate it on."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxclr.augment import Augmentation, DigitView, PhotoView
from jaxclr.data import Arrays, Data, Dataset, Records, Source, Split, Stream, load
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_finite, check_known
from jaxclr.steps.examples import apply_in_batches, batches
from jaxclr.steps.recipe import Recipe
from jaxclr.steps.scanned import represent_images
from jaxclr.steps.state import State, encoder_part
from jaxclr.steps.views import normalize_view, plain_size, plain_view

Array = jax.Array
Tree = Any


class Features(NamedTuple):
    """Representations, float32 [N, F], and their labels, int32 [N]."""

    values: np.ndarray
    labels: np.ndarray

    def labeled(self, split: Split | Stream | Records) -> "Features":
        """Those of a split with labels that have one; all of a split without."""
        if not split.labeled or (self.labels >= 0).all():
            return self
        return Features(self.values[self.labels >= 0], self.labels[self.labels >= 0])


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A trained encoder, and the data on which it is evaluated.

    Attributes:
      recipe: of the run: network, augmentation and normalization.
      encoder: a module called as encoder(pixels, train), whose norms see the rows of its batch.
      embed: representations [b, F] by the network's variables of examples; `compile_represent`.
      state: of the network.
      init_state: makes the state of the untrained network.
      dataset: its splits: train to learn from, test to evaluate on.
      data: where they come from.
      size: side in pixels at which streamed images are read; None for a split in memory.
    """

    recipe: Recipe
    encoder: nn.Module
    embed: Callable[[Tree, Tree], Array]
    state: State
    init_state: Callable[[], State]
    dataset: Dataset
    data: Data | Arrays | Source
    size: int | None

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

        They stay on the host; damaged images of a stream are left out.
        """
        function = functools.partial(self.embed, on_one_device(self.state))
        values, labels = [], []
        for some in batches(split, size=self.size):
            values.append(apply_in_batches(function, some.data))
            labels.append(some.labels)
        return Features(np.concatenate(values), np.concatenate(labels)).labeled(split)

    @functools.cached_property
    def features(self) -> tuple[Features, Features]:
        """Representations of train and test, embedded once.

        Raises:
          UserError: some are not finite, or test has a class that train lacks.
        """
        train, test = map(self.represent, labeled_splits(self.dataset))
        for name, features in (("training", train), ("test", test)):
            check_finite(name, features.values)
        check_known(train.labels, test.labels, self.classes)
        return train, test

    @functools.cached_property
    def variables(self) -> Tree:
        """The encoder's "params" and "batch_stats", on one device.

        Norms see the rows of that device only in fine-tuning.
        """
        return {name: encoder_part(parts) for name, parts in on_one_device(self.state).items()}

    def plain(self, images: Array) -> Array:
        """The encoder's input from examples without augmentation."""
        return plain_view(images, self.recipe)

    def augmented(self, keys: Array, images: Array) -> Array:
        """The same from the run's first view without changes of color, drawn by typed keys [b]."""
        light = Augmentation((_light(self.recipe.augmentation.views[0]),))
        return normalize_view(light(keys, images)[0], self.recipe)


def compile_represent(recipe: Recipe) -> Callable[[Tree, Tree], Array]:
    """Representations, float32 [b, F], as a function of the network's variables and examples."""
    return jax.jit(functools.partial(represent_images, recipe=recipe))


def on_one_device(state: State) -> Tree:
    """The network's variables on one device of this process, where evaluation runs.

    It needs no collective there, and rows need not divide.
    """
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
