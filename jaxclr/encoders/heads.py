"""Projectors and predictors: multi-layer perceptrons."""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge

from jaxclr.encoders.layers import (
    AxisName,
    Precision,
    batch_norm,
    check_floats,
    check_precision,
    compute_dtype,
)
from jaxclr.fields import check_fields

# PyTorch's default for a linear layer: uniform within +-1 / sqrt(fan_in).
_torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class Mlp:
    """MoCo v3's projector or predictor: [b, any width] to [b, out].

    Linear layers have no bias. A hidden layer is linear, BatchNorm and ReLU.

    Args:
      layers: Number of linear layers; with 1, `hidden` is not used.
      hidden: Width of every layer except the last.
      out: Width of the last layer.
      last_norm: End with a BatchNorm without scale and bias.

    Raises:
      UserError: a size is not a positive integer.

    References:
      Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021
      (arXiv:2104.02057).
    """

    layers: Annotated[int, Ge(1)] = 2
    hidden: Annotated[int, Ge(1)] = 4096
    out: Annotated[int, Ge(1)] = 256
    last_norm: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "Mlp")

    def build(self, axis_name: AxisName, dtype: Precision = "float32") -> nn.Module:
        """The Linen module, called as module(x, train); norms are synchronized over axis_name.

        Raises:
          UserError: dtype is neither "float32" nor "bfloat16".
        """
        check_precision("dtype", dtype)
        return MlpModule(self, axis_name, dtype)


class MlpModule(nn.Module):
    """The network of an `Mlp` spec."""

    spec: Mlp
    axis_name: AxisName
    dtype: Precision

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        check_floats(x, "x", "[batch, features]")
        for index in range(self.spec.layers - 1):
            x = _linear(self.spec.hidden, self.dtype, f"linear_{index}")(x)
            x = nn.relu(batch_norm(self.dtype, self.axis_name, train, name=f"norm_{index}")(x))
        last = self.spec.layers - 1
        x = _linear(self.spec.out, self.dtype, f"linear_{last}")(x)
        if self.spec.last_norm:
            plain = {"use_scale": False, "use_bias": False}
            x = batch_norm(self.dtype, self.axis_name, train, name=f"norm_{last}", **plain)(x)
        return x


class SideBySide(nn.Module):
    """H heads of one input, whose outputs [b, D] are concatenated to [b, H * D]."""

    heads: tuple[nn.Module, ...]

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return jnp.concatenate([head(x, train) for head in self.heads], axis=-1)


def _linear(features: int, dtype: Precision, name: str) -> nn.Dense:
    return nn.Dense(
        features,
        use_bias=False,
        kernel_init=_torch_uniform,
        dtype=compute_dtype(dtype),
        name=name,
    )
