"""A small convolutional network that a CPU trains in minutes."""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge, MinLen

from jaxclr.encoders.layers import (
    AxisName,
    Precision,
    batch_norm,
    check_images,
    compute_dtype,
)
from jaxclr.errors import UserError
from jaxclr.fields import check_fields


@dataclasses.dataclass(frozen=True)
class SmallConv:
    """3x3 convolutions for small images: [b, h, w, c] to [b, widths[-1]].

    A stage is convolution, BatchNorm and ReLU. Between stages, 2x2 average pooling halves the
    sides. The representation is the spatial mean of the last stage. The default has 23,408
    parameters for one channel.

    Args:
      widths: Features of each stage; every further stage needs images twice as large.
      dtype: Precision of the computation; parameters and batch statistics are always float32.
      patch: Side of the squares of pixels that become one pixel of all their channels before the
        first stage; it must divide the sides of the images. 1 suits images of about 8 pixels.

    Raises:
      UserError: a field is invalid, or (when called) the images are too small or the patch does not
        divide them.
    """

    widths: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (16, 32, 64)
    dtype: Precision = "float32"
    patch: Annotated[int, Ge(1)] = 1

    def __post_init__(self) -> None:
        check_fields(self, "SmallConv")

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(images, train); its norms span axis_name."""
        return SmallConvModule(self, axis_name)


class SmallConvModule(nn.Module):
    """The network of a `SmallConv` spec."""

    spec: SmallConv
    axis_name: AxisName

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.spec.widths)

    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = images
        for index in range(self.stages):
            x = self.stage(index, x, train)
        return jnp.mean(x, axis=(1, 2))

    @nn.compact
    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """A stage's feature map [b, h, w, c] from that of the stage before, or from images."""
        if index == 0:
            self._check(x)
            x = patches(x, self.spec.patch)
        else:
            x = halve(x)
        # A matrix product, because XLA's convolution takes 1.5 times as long on a CPU.
        x = nn.Dense(
            self.spec.widths[index],
            use_bias=False,
            kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
            dtype=compute_dtype(self.spec.dtype),
            name=f"conv_{index}",
        )(neighborhoods(x))
        return nn.relu(batch_norm(self.spec.dtype, self.axis_name, train, name=f"norm_{index}")(x))

    def _check(self, images: jax.Array) -> None:
        check_images(images)
        patch = self.spec.patch
        if images.shape[1] % patch or images.shape[2] % patch:
            raise UserError(
                f"Images of {images.shape[1]} x {images.shape[2]} pixels cannot be cut into "
                f"patches of {patch}; the patch must divide both sides."
            )
        smallest = patch * 2 ** (self.stages - 1)
        if min(images.shape[1:3]) < smallest:
            raise UserError(
                f"Images of {images.shape[1]} x {images.shape[2]} pixels are too small for "
                f"SmallConv with {self.stages} widths, which halves the sides "
                f"between them; use images of at least {smallest} pixels a side, or fewer widths."
            )


def patches(x: jax.Array, side: int) -> jax.Array:
    """Squares of pixels as one pixel each: [b, h, w, c] to [b, h / side, w / side, side² c]."""
    batch, height, width, channels = x.shape
    height, width = height // side, width // side
    x = x.reshape(batch, height, side, width, side, channels).swapaxes(2, 3)
    return x.reshape(batch, height, width, side * side * channels)


def neighborhoods(x: jax.Array) -> jax.Array:
    """The zero-padded 3x3 neighborhood of each pixel: [b, h, w, c] to [b, h, w, 9c]."""
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


def halve(x: jax.Array) -> jax.Array:
    """Means of 2x2 squares, [b, h, w, c] to [b, h // 2, w // 2, c]; drops an odd row or column."""
    batch, height, width, channels = x.shape
    height, width = height // 2, width // 2
    x = x[:, : 2 * height, : 2 * width]
    return jnp.mean(x.reshape(batch, height, 2, width, 2, channels), axis=(2, 4))
