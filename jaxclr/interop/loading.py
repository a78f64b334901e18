"""The encoder of a run, for use outside of training."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxclr import trees
from jaxclr.augment import PhotoView
from jaxclr.encoders.custom import build_encoder, towers_of
from jaxclr.errors import UserError
from jaxclr.methods import Branch
from jaxclr.paths import expanded
from jaxclr.runs.checkpoints import read_variables
from jaxclr.runs.config import Config
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.state import encoder_part
from jaxclr.steps.views import plain_view
from jaxclr.training.session import make_recipe

Array = jax.Array
Tree = Any


class Loaded(NamedTuple):
    """A trained encoder.

    Attributes:
      encode: examples [b, ...] (uint8 images [b, H, W, C], or any tree of arrays that the run was
        trained on) to representations, float32 [b, F], norms by their running statistics; jitted,
        and compiled once for each shape.
      represent: the same as a function of `variables` and examples; not jitted.
      embed: the same to embeddings, outputs of the projector, float32 [b, D].
      variables: "params" and "batch_stats" of `module`.
      module: a Linen module called as module.apply(variables, preprocess(examples), train), for
        gradients and layers.
      preprocess: examples to the module's input; images are resized to the size of the run's first
        view (not cropped), scaled to [0, 1], and normalized by the run's mean and deviation
        (config.data.mean, config.data.std).
      config: of the run.
      step: of the checkpoint.
    """

    encode: Callable[[Tree], Array]
    represent: Callable[[Tree, Tree], Array]
    embed: Callable[[Tree], Array]
    variables: Tree
    module: nn.Module
    preprocess: Callable[[Tree], Tree]
    config: Config
    step: int

    @property
    def channels(self) -> int | None:
        """Of images; None if the run was trained on other data."""
        mean = self.config.data.mean
        return None if mean is None else len(mean)

    @property
    def size(self) -> int | None:
        """Side in pixels to which images are resized; None: any size is taken as it is."""
        view = self.config.augmentation.views[0]
        return view.size if isinstance(view, PhotoView) else None


def load(run: str | os.PathLike[str] | RunFolder, *, view: int = 0) -> Loaded:
    """The encoder of a run's newest undamaged checkpoint; the run's data need not be available.

    >>> encoder = jaxclr.load("runs/digits-sim_affinity-0")  # doctest: +SKIP
    >>> encoder.encode(np.zeros((2, 8, 8, 1), np.uint8)).shape  # doctest: +SKIP
    (2, 64)

    Args:
      run: folder of the run, of which nothing is changed; it may be in training.
      view: whose encoder, where each view has its own.

    Returns:
      Encoder function, variables, preprocessing and configuration.

    Raises:
      UserError: the folder is not a run, or has no undamaged checkpoint.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(expanded(run))
    config = run.config()
    count = len(towers_of(config.encoder))
    if not 0 <= view < count:
        raise UserError(
            f"The run has {count} encoder(s); view must be 0 to {count - 1}, got {view}."
        )
    step, network_variables = read_variables(run, ("encoder", "projector"))
    variables = {name: encoder_part(parts, view) for name, parts in network_variables.items()}
    # Of a recipe only network and preprocessing are used, which do not depend on the data.
    recipe = make_recipe(config, images=config.batch_size, classes=0)
    module = build_encoder(towers_of(config.encoder)[view], None)
    preprocess = lambda examples: plain_view(examples, recipe, view)

    def represent(variables: Tree, examples: Tree) -> Array:
        check(examples)
        x = preprocess(examples)
        with _fitting(run):
            return jnp.asarray(module.apply(variables, x, False), jnp.float32)

    @jax.jit
    def project(variables: Tree, examples: Tree) -> Array:
        network, x = recipe.network.clone(predictor=None), preprocess(examples)
        with _fitting(run):
            branch = network.apply(variables, x, train=False, view=view)
        return cast(Branch, branch).embedding.astype(jnp.float32)

    def embed(examples: Tree) -> Array:
        check(examples)
        if "projector" not in network_variables["params"]:
            raise UserError(f"{run.folder} has no projector, only an encoder.")
        return project(network_variables, examples)

    compiled = jax.jit(represent)

    def encode(examples: Tree) -> Array:
        check(examples)
        return compiled(variables, examples)

    def check(examples: Tree) -> None:
        if config.data.mean is not None:  # images have one, other data do not
            _check_images(examples, channels=len(config.data.mean))

    return Loaded(encode, represent, embed, variables, module, preprocess, config, step)


@contextlib.contextmanager
def _fitting(run: RunFolder) -> Iterator[None]:
    """Turns the error for parameters of other shapes into a UserError."""
    try:
        yield
    except flax.errors.FlaxError as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(
            f"The checkpoint in {run.folder} does not fit its config.json: {line}"
        ) from error


def _check_images(examples: Tree, *, channels: int) -> None:
    images = trees.leaves(examples)[0]
    if images.ndim != 4 or images.dtype != np.uint8:
        raise TypeError(f"images must be uint8 [b, H, W, C], got {images.dtype} {images.shape}.")
    if images.shape[-1] != channels:
        raise UserError(f"Images have {images.shape[-1]} channel(s), the encoder takes {channels}.")
