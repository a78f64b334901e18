"""Residual networks with the weights and shapes of torchvision."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclr.encoders.layers import (
    AxisName,
    BatchNorm,
    Precision,
    Remat,
    batch_norm,
    check_images,
    compute_dtype,
    rematerialized,
)
from jaxclr.fields import check_fields

_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}

# Normal, not truncated, as in torchvision.
_he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class ResNet:
    """ResNet-18, 34 or 50 without classifier: images [b, h, w, c] to [b, 512 or 2048].

    The scale of the last norm of each residual block is initialized to zero, so that every block
    is initially its shortcut.

    Args:
      depth: Number of layers. 18 and 34 have basic blocks; 50 has bottlenecks with the stride in
        the 3x3 convolution (torchvision's v1.5).
      stem: Stem imagenet is a 7x7 convolution and a max-pool, both of stride 2; stem cifar is a 3x3
        convolution of stride 1, for images of about 32 pixels.
      dtype: Precision of the computation; parameters and batch statistics are always float32.
      remat: What is stored for the gradient. none: all activations; blocks: the input of each
        residual block, for about a third more computation; dots: also the outputs of its
        convolutions, so that norms and activation functions are recomputed.

    Raises:
      UserError: a field is invalid.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).
      Goyal et al., Accurate, Large Minibatch SGD, 2017 (arXiv:1706.02677), for the zero scale.
    """

    depth: Literal[18, 34, 50] = 18
    stem: Literal["cifar", "imagenet"] = "cifar"
    dtype: Precision = "float32"
    remat: Remat = "none"

    def __post_init__(self) -> None:
        check_fields(self, "ResNet")

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(images, train); its norms span axis_name."""
        return ResNetModule(self, axis_name)


class ResNetModule(nn.Module):
    """The network of a `ResNet` spec; submodules have torchvision's names, with _ for dots."""

    spec: ResNet
    axis_name: AxisName

    @property
    def stages(self) -> int:
        """Number of stages, of which the first has the stem."""
        return len(_STAGES[self.spec.depth])

    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        x = images
        for index in range(self.stages):
            x = self.stage(index, x, train)
        return jnp.mean(x, axis=(1, 2))

    @nn.compact
    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """A stage's feature map [b, h, w, c] from that of the stage before, or from images."""
        dtype = self.spec.dtype
        if index == 0:
            x = self._stem(x, train)
        block = Bottleneck if self.spec.depth == 50 else BasicBlock
        # Argument 2 is `train`, counted from self.
        block = rematerialized(block, self.spec.remat, static_argnums=2)
        for number in range(_STAGES[self.spec.depth][index]):
            x = block(
                width=64 * 2**index,
                stride=2 if index > 0 and number == 0 else 1,
                dtype=dtype,
                axis_name=self.axis_name,
                name=f"layer{index + 1}_{number}",
            )(x, train)
        return x

    def _stem(self, images: jax.Array, train: bool) -> jax.Array:
        check_images(images)
        dtype, imagenet = self.spec.dtype, self.spec.stem == "imagenet"
        x = convolution(64, 7 if imagenet else 3, 2 if imagenet else 1, dtype, name="conv1")(images)
        x = nn.relu(batch_norm(dtype, self.axis_name, train, name="bn1")(x))
        if not imagenet:
            return x
        padding = ((1, 1), (1, 1))
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)  # pyright: ignore[reportArgumentType]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [b, h, w, c] to [b, h/stride, w/stride, width]."""

    width: int
    stride: int
    dtype: Precision
    axis_name: AxisName

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = convolution(self.width, 3, self.stride, self.dtype, name="conv1")(x)
        y = nn.relu(batch_norm(self.dtype, self.axis_name, train, name="bn1")(y))
        y = convolution(self.width, 3, 1, self.dtype, name="conv2")(y)
        y = _last_norm(self, train, "bn2")(y)
        return nn.relu(y + _shortcut(self, x, self.width, train))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, a shortcut: [b, h, w, c] to [b, h/stride, w/stride, 4 width]."""

    width: int
    stride: int
    dtype: Precision
    axis_name: AxisName

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = convolution(self.width, 1, 1, self.dtype, name="conv1")(x)
        y = nn.relu(batch_norm(self.dtype, self.axis_name, train, name="bn1")(y))
        y = convolution(self.width, 3, self.stride, self.dtype, name="conv2")(y)
        y = nn.relu(batch_norm(self.dtype, self.axis_name, train, name="bn2")(y))
        y = convolution(4 * self.width, 1, 1, self.dtype, name="conv3")(y)
        y = _last_norm(self, train, "bn3")(y)
        return nn.relu(y + _shortcut(self, x, 4 * self.width, train))


def convolution(features: int, size: int, stride: int, dtype: Precision, name: str) -> nn.Conv:
    """A convolution without bias, padded by size // 2 on every side.

    Padding "SAME" would differ from PyTorch for strided convolutions: it pads one side only.
    """
    return nn.Conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=((size // 2, size // 2),) * 2,
        use_bias=False,
        kernel_init=_he_fan_out,
        dtype=compute_dtype(dtype),
        name=name,
    )


def _last_norm(block: BasicBlock | Bottleneck, train: bool, name: str) -> BatchNorm:
    zero = nn.initializers.zeros
    return batch_norm(block.dtype, block.axis_name, train, scale_init=zero, name=name)


def _shortcut(
    block: BasicBlock | Bottleneck, x: jax.Array, features: int, train: bool
) -> jax.Array:
    """x, or if the block changes its shape, a strided 1x1 convolution and norm of x."""
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = convolution(features, 1, block.stride, block.dtype, name="downsample_0")(x)
    return batch_norm(block.dtype, block.axis_name, train, name="downsample_1")(x)
