"""An encoder from a file of PyTorch's weights, as a run to evaluate, embed and export."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxclr.augment import Augmentation, PhotoView
from jaxclr.data import Data
from jaxclr.encoders import Encoder, ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.interop.layouts import Found, check_complete, find_encoder
from jaxclr.interop.names import POSITIONS, check_named, fixed_positions, from_torch, torch_shapes
from jaxclr.interop.positions import resize_positions
from jaxclr.interop.weights import Stored, read_weights
from jaxclr.methods import Imported
from jaxclr.paths import Path
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.config import Config
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.optimizers import Sgd
from jaxclr.steps.state import State, image_examples, init_state
from jaxclr.training.session import make_recipe

Tree = Any

# ImageNet's, which nearly every public encoder uses.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGEST_GRID = 256  # patches along a side of an image
BATCH_SIZE = 64  # nothing is trained; many numbers of devices divide it


class Weights(NamedTuple):
    """An encoder read from a file.

    Attributes:
      variables: "params" and "batch_stats".
      side: of its images in pixels; a default if the file does not determine it.
      channels: of the images.
      found: where in the file it was, and what else is there.
      note: what was changed, for the user; empty for nothing.
    """

    variables: Tree
    side: int
    channels: int
    found: Found
    note: str = ""


def read_encoder(path: Path, spec: Encoder, *, prefix: str | None = None) -> Weights:
    """An encoder's variables from a file in a public layout; every array of the encoder is used.

    Args:
      path: a .safetensors file, or a PyTorch checkpoint where PyTorch is installed.
      spec: a ResNet or ViT.
      prefix: what stands before the encoder's names; None: found, the trained encoder before its
        moving average.

    Raises:
      UserError: the file cannot be read, or holds another encoder: what is missing, left over or of
        another shape.
    """
    spec = check_named(spec)
    arrays = read_weights(path)
    try:
        found = find_encoder(arrays, spec, prefix)
        first = "conv1.weight" if isinstance(spec, ResNet) else "patch_embed.proj.weight"
        if first not in found.arrays or len(found.arrays[first].shape) != 4:
            raise UserError(f"is of another encoder: it lacks {first}, or has it in another shape")
        channels = found.arrays[first].shape[1]
        side = 32 if getattr(spec, "stem", None) == "cifar" else 224
        if isinstance(spec, ViT):
            found, side = _without_positions(found, spec)
        like = _like(spec, side, channels)
        check_complete(found, torch_shapes(spec, like))
        named = {name: stored.read() for name, stored in found.arrays.items()}
    except UserError as error:
        asked = f"{type(spec).__name__} {_fields(spec)}"
        raise UserError(
            f"{path} {error}. Asked for was {asked}; choose another --encoder, or set its fields."
        ) from error
    return Weights(from_torch(spec, named, like), side, channels, found)


def import_encoder(
    path: Path,
    spec: Encoder,
    run: RunFolder,
    *,
    data: Data,
    side: int | None = None,
    prefix: str | None = None,
    overwrite: bool = False,
) -> Weights:
    """Makes the folder of a run that has taken no step and whose encoder is that of a file.

    Args:
      path: as of `read_encoder`.
      spec: likewise.
      run: the folder.
      data: what to evaluate it on; its mean and std are ImageNet's unless given.
      side: to which images are brought, in pixels; None: that of the file. For another, learned
        positions are interpolated.
      prefix: as of `read_encoder`.
      overwrite: whether to replace a run that is there.

    Raises:
      UserError: as `read_encoder`; or side, channels and encoder do not fit each other; or the
        folder is not free.
    """
    weights = read_encoder(path, spec, prefix=prefix)
    side = side or weights.side
    if isinstance(spec, ViT) and spec.positions == "learned" and side != weights.side:
        weights = _resized(weights, spec, side)
    if data.mean is None and weights.channels != 3:
        raise UserError(
            f"{path} takes images of {weights.channels} channel(s); give their --data.mean and "
            "--data.std, scaled to [0, 1]."
        )
    mean, std = (data.mean, data.std) if data.mean else (MEAN, STD)
    changes: dict[str, Any] = {"mean": mean, "std": std}
    if weights.channels == 3 and data.channels == "as_is":
        changes["channels"] = "rgb"
    if data.image_size is None and data.has_files:
        changes["image_size"] = side
    data = dataclasses.replace(data, **changes)
    if len(mean) != weights.channels:
        raise UserError(
            f"{path} takes images of {weights.channels} channel(s), data.mean has "
            f"{len(mean)} numbers."
        )
    config = Config(
        method=Imported(file=str(path), prefix=weights.found.prefix),
        encoder=spec,
        data=data,
        augmentation=Augmentation((PhotoView(size=side),)),
        optimizer=Sgd(),
        epochs=1,
        batch_size=BATCH_SIZE,
        warmup_epochs=0.0,
    )
    state = _state(config, weights)
    with run.locked():
        run.create(config, overwrite=overwrite)
        with Checkpoints(run.checkpoints) as checkpoints:
            checkpoints.save(state, 0)
    return weights


def _state(config: Config, weights: Weights) -> State:
    """The state of a run before its first step: the encoder's variables, and zeros elsewhere."""
    recipe = make_recipe(config, images=config.batch_size, classes=0)
    side = config.augmentation.views[0].size
    shapes = jax.eval_shape(
        lambda: init_state(recipe, image_examples(side, side, weights.channels))
    )
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = state.replace(
        params={**state.params, "encoder": weights.variables["params"]},
        batch_stats={name: weights.variables["batch_stats"] for name in state.batch_stats},
        bad_step=np.full((), -1, np.int32),
    )
    return jax.device_put(state)


def _resized(weights: Weights, spec: ViT, side: int) -> Weights:
    """The encoder for images of another side, by the rule of the model that the file is of."""
    if side % spec.patch:
        raise UserError(
            f"--image-size must be a multiple of the patch, {spec.patch}, got {side}; learned "
            f"positions are interpolated to such sizes, and are for {weights.side} pixels as given."
        )
    # Only DINOv2's own files have the mask token.
    dinov2 = f"{weights.found.prefix}mask_token" in weights.found.aside and not spec.registers
    params, (old, new) = weights.variables["params"], (weights.side, side)
    positions = resize_positions(
        params["positions"], 1 + (side // spec.patch) ** 2, "dinov2" if dinov2 else "timm"
    )
    return weights._replace(
        variables={**weights.variables, "params": {**params, "positions": positions}},
        side=side,
        note=f"Learned positions were interpolated from images of {old} to {new} pixels, as "
        f"{'DINOv2' if dinov2 else 'timm'} does.",
    )


def _without_positions(found: Found, spec: ViT) -> tuple[Found, int]:
    """Leaves fixed positions out, which are computed; also gives the side of the images."""
    positions = found.arrays.get(POSITIONS)
    if positions is None:
        return found, 224
    if spec.registers and len(positions.shape) == 3:
        positions = _with_class(positions)
        found = found._replace(arrays={**found.arrays, POSITIONS: positions})
    tokens = positions.shape[1] if len(positions.shape) == 3 else 0
    grid = math.isqrt(max(tokens - 1, 0))
    if tokens < 2 or grid**2 != tokens - 1 or grid > LARGEST_GRID:
        raise UserError(
            f"has {POSITIONS} of {[*positions.shape]}, which are not a class token and a square "
            f"of at most {LARGEST_GRID} x {LARGEST_GRID} patches"
        )
    if spec.positions == "learned":
        return found, grid * spec.patch
    if positions.shape != (1, tokens, spec.features) or not np.allclose(
        positions.read().astype(np.float32), fixed_positions(grid, spec.features), atol=1e-3
    ):
        raise UserError(
            f"has {POSITIONS} that are not MoCo v3's fixed ones; set --encoder.positions learned"
        )
    rest = {name: array for name, array in found.arrays.items() if name != POSITIONS}
    return found._replace(arrays=rest), grid * spec.patch


def _with_class(positions: Stored) -> Stored:
    """Positions with the class token's, 0 without one: [1, n, width], n - 1 a square."""
    _, tokens, width = positions.shape
    if math.isqrt(tokens) ** 2 != tokens:
        return positions
    read = lambda: np.pad(positions.read(), ((0, 0), (1, 0), (0, 0)))
    return Stored((1, tokens + 1, width), read)


def _like(spec: ResNet | ViT, side: int, channels: int) -> Tree:
    """Shapes and types of an encoder's variables."""
    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    return jax.eval_shape(lambda x: spec.build(None).init(jax.random.key(0), x, False), images)


def _fields(spec: ResNet | ViT) -> str:
    return ", ".join(
        f"{field.name} {getattr(spec, field.name)}" for field in dataclasses.fields(spec)
    )
