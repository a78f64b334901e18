"""What the encoders share: precision, normalization, and checks of fields and inputs."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclr.errors import UserError

AxisName = str | tuple[str, ...] | None
Precision = Literal["float32", "bfloat16"]


def compute_dtype(precision: Precision) -> Any:
    """The `dtype` to give a Flax layer.

    For "float32" that is None, by which Flax promotes inputs and parameters, so that float64
    parameters and inputs stay float64. "bfloat16" casts both; parameters and batch statistics
    remain float32.
    """
    return jnp.bfloat16 if precision == "bfloat16" else None


def batch_norm(
    precision: Precision, axis_name: AxisName, train: bool, **options: Any
) -> nn.BatchNorm:
    """BatchNorm with PyTorch's constants, its statistics over the global batch of `axis_name`.

    Statistics are computed and kept in float32 (float64 for float64 inputs) whatever the precision.
    The running variance is the biased one; PyTorch keeps the unbiased.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,
        dtype=compute_dtype(precision),
        **options,
    )


def check_floats(x: jax.Array, name: str, shape: str) -> None:
    """Raises unless x is a floating array whose rank is that of `shape`, e.g. "[batch, height]"."""
    if x.ndim != shape.count(",") + 1:
        raise ValueError(f"{name} must be {shape}, got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"{name} must be floating, got {x.dtype}; convert and normalize before the module."
        )


def check_images(images: jax.Array) -> None:
    """Raises unless images are floats [batch, height, width, channels]."""
    check_floats(images, "images", "[batch, height, width, channels]")


def check_precision(field: str, value: Any) -> None:
    """Raises UserError unless value names a precision."""
    if value not in get_args(Precision):
        raise UserError(f"{field} must be 'float32' or 'bfloat16', got {value!r}.")
