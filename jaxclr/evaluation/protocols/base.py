"""What a protocol is, and what it sees of a run."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from jaxclr.data import Split, Stream
from jaxclr.errors import UserError
from jaxclr.fields import check_fields

Array = jax.Array
Tree = Any


class Features(NamedTuple):
    """Representations, float32 [N, F], and their labels, int32 [N]."""

    values: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A trained encoder, and the images on which it is judged.

    Attributes:
      train: images to learn from.
      test: images to judge on, touched once; None if there are none, as only protocols without labels allow.
      classes: names, by label.
      size: side in pixels at which streamed images are read; None for images in memory.
      represent: the frozen representations of a split.
      encoder: a module called as encoder(pixels, train), whose norms see the rows of its batch.
      variables: the encoder's "params" and "batch_stats".
      plain: pixels for the encoder, [b, h, w, C], of uint8 images without augmentation.
      augmented: the same with a light augmentation, of typed keys [b] and images.
      embed_views: projector outputs of V views, [V, b, D], by the trained and by the untrained network, of typed keys [b],
        images, and V.
    """

    train: Split | Stream
    test: Split | Stream | None
    classes: tuple[str, ...]
    size: int | None
    represent: Callable[[Split | Stream], Features]
    encoder: nn.Module
    variables: Tree
    plain: Callable[[Array], Array]
    augmented: Callable[[Array, Array], Array]
    embed_views: Callable[[Array, Array, int], tuple[Array, Array]]

    @functools.cached_property
    def features(self) -> tuple[Features, Features]:
        """Representations of train and test, embedded once.

        Raises:
          UserError: some are not finite, or test has a class that train lacks.
        """
        train, test = self.represent(self.train), self.represent(self.test)
        for name, features in (("training", train), ("test", test)):
            check_finite(name, features.values)
        check_known(train.labels, test.labels, self.classes)
        return train, test


class Result(NamedTuple):
    """What a protocol found.

    Attributes:
      figures: by name, a value for each draw.
      chosen: for a figure, the settings that were chosen on training data, by name.
    """

    figures: dict[str, tuple[float, ...]]
    chosen: dict[str, dict[str, Any]] = {}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to judge an encoder. Its fields are its settings, which go into the record."""

    needs_labels: ClassVar[bool] = True
    elsewhere: ClassVar[bool] = False  # on other data than the run's alone
    is_random: ClassVar[bool] = True  # whether a seed changes anything
    percent: ClassVar[bool] = True  # whether figures are shares, told in %

    def __post_init__(self) -> None:
        check_fields(self)

    def run(self, subject: Subject, seed: int) -> Result:
        """The figures of one seed.

        Raises:
          UserError: settings and data do not fit each other.
        """
        raise TypeError(f"{type(self).__name__} must define run(subject, seed).")


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises UserError if a row of features holds a NaN or an infinity."""
    bad = np.flatnonzero(~np.isfinite(values.sum(axis=1)))
    if len(bad):
        raise UserError(
            f"{len(bad)} of {len(values)} {name} images have features that are not finite (NaN), the first of them image "
            f"{bad[0]}: the parameters diverged, or images are far from those of training. Evaluate an earlier checkpoint."
        )


def check_known(train: np.ndarray, test: np.ndarray, classes: tuple[str, ...]) -> None:
    """Raises UserError if there is a label in test that train lacks."""
    strange = np.setdiff1d(test, train)
    if len(strange):
        raise UserError(
            f"Class '{classes[strange[0]]}' is in the test split but not in the training split, from which it cannot be "
            "learned. Add images of it to the one, or remove them from the other."
        )


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each feature, float32 [D]; a constant feature has a deviation of 1. Nothing is copied."""
    mean = values.mean(axis=0, dtype=np.float64)
    pieces = np.array_split(values, -(-len(values) // 4096))
    std = np.sqrt(sum(((piece - mean) ** 2).sum(axis=0) for piece in pieces) / len(values))
    std = np.where(std > 1e-6 * np.abs(mean), std, 1.0)
    return mean.astype(np.float32), std.astype(np.float32)
