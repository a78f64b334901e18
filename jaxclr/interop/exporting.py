"""A run's encoder for other programs: weights under PyTorch's names, or a StableHLO function."""

import json
from typing import Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from jaxclr.data import Split
from jaxclr.data import load as load_data
from jaxclr.encoders import ViT
from jaxclr.errors import UserError, optional
from jaxclr.interop.loading import Loaded
from jaxclr.interop.names import to_torch
from jaxclr.interop.weights import write_safetensors
from jaxclr.paths import Path
from jaxclr.runs.files import check_names_file, make_folder, write_atomically, writing

Format = Literal["safetensors", "stablehlo"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(
    loaded: Loaded,
    to: Format,
    out: Path,
    *,
    side: int | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the encoder of a run.

    "safetensors" has the arrays of a ResNet by torchvision's names, of a ViT by timm's, in their
    layouts, to load with strict=True (there is no classifier); a note says how images are
    normalized. "stablehlo" is a function of uint8 images [b, H, W, C], any b, that contains
    preprocessing and weights::

        encode = jax.export.deserialize(bytearray(pathlib.Path(out).read_bytes())).call

    Args:
      loaded: the encoder.
      to: the format.
      out: the file.
      side: of the images in pixels; None: that of the run's views, or of its data.
      overwrite: replace a file of that name.

    Raises:
      UserError: the file exists or cannot be written, or the encoder has no counterpart in
        torchvision and timm.
    """
    check_names_file(out)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Replace it with --overwrite, or give another --out.")
    with writing(out.parent):
        make_folder(out.parent)
        if to == "stablehlo":
            write_atomically(out, stablehlo(loaded, image_shape(loaded, side)))
            return
        spec = loaded.config.encoder
        height, width = image_shape(loaded, side)[:2] if isinstance(spec, ViT) else (None, None)
        if height != width:
            raise UserError(
                f"Images of {height} x {width} pixels are not square, and timm's positions are; "
                "give --image-size."
            )
        notes = {
            "mean": json.dumps(loaded.config.data.mean),
            "std": json.dumps(loaded.config.data.std),
        }
        write_safetensors(out, to_torch(spec, loaded.variables, side=height), notes)


def stablehlo(loaded: Loaded, shape: tuple[int, ...]) -> bytes:
    """The encoder as a serialized `jax.export.Exported` for CPUs, GPUs and TPUs.

    Args:
      loaded: the encoder.
      shape: height, width and channels of the images.
    """
    variables = jax.tree.map(np.asarray, loaded.variables)  # constants of the function
    module = loaded.module
    (batch,) = jax.export.symbolic_shape("b")

    @jax.jit
    def encode(images: jax.Array) -> jax.Array:
        return jnp.asarray(module.apply(variables, loaded.preprocess(images), False), jnp.float32)

    images = jax.ShapeDtypeStruct((batch, *shape), np.uint8)
    optional("flatbuffers")  # jax.export needs it
    return bytes(jax.export.export(encode, platforms=PLATFORMS)(images).serialize())


def image_shape(loaded: Loaded, side: int | None) -> tuple[int, ...]:
    """Height, width and channels of the images that an encoder is exported for."""
    if (side := side or loaded.size) is not None:
        if loaded.channels is None:
            raise UserError("The encoder takes other data than images; leave --image-size out.")
        return side, side, loaded.channels
    train = load_data(loaded.config.data).train
    if not isinstance(train, Split):
        raise UserError("The encoder takes images of any size; give --image-size.")
    return train.examples.shape[1:]
