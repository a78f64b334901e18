"""Projectors and predictors: multi-layer perceptrons."""

import dataclasses
import functools
from typing import Annotated, Any, Literal

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
from jaxclr.errors import UserError
from jaxclr.fields import check_fields


@dataclasses.dataclass(frozen=True)
class Mlp:
    """A projector or predictor: [b, any width] to [b, out]. The defaults are MoCo v3's.

    Args:
      layers: Number of linear layers; with 1, `hidden` is not used.
      hidden: Width of every layer except the last.
      out: Width of the last layer.
      last_norm: End with a BatchNorm.
      norm: A BatchNorm between each hidden layer and its ReLU.
      bias: Biases in the linear layers that no BatchNorm follows; before one they have no effect.
      last_affine: Trained parameters of the last BatchNorm: none, its scale, or scale and bias
        (both).

    Raises:
      UserError: a size is not a positive integer, or last_affine is set without last_norm.

    References:
      Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021
      (arXiv:2104.02057).
    """

    layers: Annotated[int, Ge(1)] = 2
    hidden: Annotated[int, Ge(1)] = 4096
    out: Annotated[int, Ge(1)] = 256
    last_norm: bool = False
    norm: bool = True
    bias: bool = False
    last_affine: Literal["none", "scale", "both"] = "none"

    def __post_init__(self) -> None:
        check_fields(self, "Mlp")
        if self.last_affine != "none" and not self.last_norm:
            raise UserError(
                f"Mlp.last_affine is {self.last_affine!r} without a last norm; set Mlp.last_norm, "
                "or Mlp.last_affine to 'none'."
            )

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
        spec, last = self.spec, self.spec.layers - 1
        norm = functools.partial(batch_norm, self.dtype, self.axis_name, train)
        for index in range(last):
            bias = spec.bias and not spec.norm
            x = _linear(x, spec.hidden, bias, self.dtype, f"linear_{index}")
            x = nn.relu(norm(name=f"norm_{index}")(x) if spec.norm else x)
        bias = spec.bias and not spec.last_norm
        x = _linear(x, spec.out, bias, self.dtype, f"linear_{last}")
        if spec.last_norm:
            scale, bias = spec.last_affine != "none", spec.last_affine == "both"
            x = norm(name=f"norm_{last}", use_scale=scale, use_bias=bias)(x)
        return x


class SideBySide(nn.Module):
    """H heads of one input, whose outputs [b, D] are concatenated to [b, H * D]."""

    heads: tuple[nn.Module, ...]

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return jnp.concatenate([head(x, train) for head in self.heads], axis=-1)


def _linear(x: jax.Array, features: int, bias: bool, dtype: Precision, name: str) -> jax.Array:
    """A linear layer, initially uniform within +-1 / sqrt(fan_in), as PyTorch's."""

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        bound = x.shape[1] ** -0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    options = {"use_bias": bias, "kernel_init": kernel, "bias_init": uniform}
    return nn.Dense(features, dtype=compute_dtype(dtype), name=name, **options)(x)
