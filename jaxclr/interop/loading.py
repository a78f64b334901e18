"""The encoder of a run, for use outside of training."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.augment import PhotoView
from jaxclr.errors import UserError
from jaxclr.runs.checkpoints import read_variables
from jaxclr.runs.config import Config
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.views import plain_view
from jaxclr.training.session import make_recipe

Array = jax.Array
Tree = Any


class Loaded(NamedTuple):
    """A trained encoder.

    Attributes:
      encode: uint8 images [b, H, W, C] to representations, float32 [b, F], norms by their running
        statistics; jitted, and compiled once for each shape of images.
      variables: "params" and "batch_stats" of `config.encoder.build(None)`, a Linen module called
        as module.apply(variables, preprocess(images), train), for those who want gradients or
        layers.
      preprocess: uint8 images to the module's input: resized to the size of the run's first view
        (not cropped), scaled to [0, 1], normalised by the run's mean and deviation
        (config.data.mean, config.data.std).
      config: of the run.
      step: of the checkpoint.
    """

    encode: Callable[[Array | np.ndarray], Array]
    variables: Tree
    preprocess: Callable[[Array], Array]
    config: Config
    step: int

    @property
    def channels(self) -> int:
        """Of the images."""
        return len(self.config.data.mean)

    @property
    def size(self) -> int | None:
        """Side in pixels to which images are brought; None: any size is taken as it is."""
        view = self.config.augmentation.views[0]
        return view.size if isinstance(view, PhotoView) else None


def load(run: str | pathlib.Path) -> Loaded:
    """The encoder of a run's newest undamaged checkpoint; the run's data need not be at hand.

    >>> encoder = jaxclr.load("runs/digits-sim_affinity-0")
    >>> encoder.encode(np.zeros((2, 8, 8, 1), np.uint8)).shape
    (2, 64)

    Args:
      run: folder of the run, of which nothing is changed; it may be in training.

    Returns:
      Encoder function, variables, preprocessing and configuration.

    Raises:
      UserError: the folder is no run, or has no undamaged checkpoint.
    """
    run = RunFolder(pathlib.Path(run))
    config = run.config()
    step, variables = read_variables(run)
    # Of a recipe only network and preprocessing are used, which do not depend on the data.
    recipe = make_recipe(config, images=config.batch_size, classes=0)
    module = config.encoder.build(None)

    def preprocess(images):
        return plain_view(images, recipe)

    @jax.jit
    def apply(variables: Tree, images: Array) -> Array:
        return module.apply(variables, preprocess(images), False).astype(jnp.float32)

    def encode(images: Array | np.ndarray) -> Array:
        _check(images, config)
        return apply(variables, images)

    return Loaded(encode, variables, preprocess, config, step)


def _check(images: Array | np.ndarray, config: Config) -> None:
    channels = len(config.data.mean)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 [b, H, W, C], got {images.dtype} {images.shape}.")
    if images.shape[-1] != channels:
        raise UserError(f"Images have {images.shape[-1]} channel(s), the encoder takes {channels}.")
