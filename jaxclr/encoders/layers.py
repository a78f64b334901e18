"""Shared by all encoders: precision, BatchNorm, and checks of fields and inputs."""

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclr.errors import UserError

AxisName = str | tuple[str, ...] | None
Precision = Literal["float32", "bfloat16"]


def compute_dtype(precision: Precision) -> Any:
    """The `dtype` argument of Flax layers.

    For "float32" it is None: Flax then promotes inputs and parameters, so that float64 stays
    float64. "bfloat16" casts both; stored parameters and batch statistics remain float32.
    """
    return jnp.bfloat16 if precision == "bfloat16" else None


def batch_norm(
    precision: Precision, axis_name: AxisName, train: bool, **options: Any
) -> nn.BatchNorm:
    """BatchNorm with PyTorch's constants and statistics over the global batch of `axis_name`.

    For any precision, statistics are computed and stored in float32 (float64 for float64 inputs).
    The running variance is the biased one; PyTorch's is unbiased.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,  # pyright: ignore[reportArgumentType]: Flax takes tuples too
        dtype=compute_dtype(precision),
        **options,
    )


def check_floats(x: jax.Array, name: str, shape: str) -> None:
    """Raises unless x is a floating array whose rank is that of `shape`, e.g. "[batch, height]"."""
    if x.ndim != shape.count(",") + 1:
        raise ValueError(f"{name} must be {shape}, got shape {x.shape}.")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {x.dtype}; convert and normalize it first.")


def check_images(images: jax.Array) -> None:
    """Raises unless images are floats [batch, height, width, channels]."""
    check_floats(images, "images", "[batch, height, width, channels]")


def check_precision(field: str, value: Any) -> None:
    """Raises UserError unless value names a precision."""
    if value not in get_args(Precision):
        raise UserError(f"{field} must be 'float32' or 'bfloat16', got {value!r}.")
