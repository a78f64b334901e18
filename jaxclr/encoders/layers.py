"""Shared by all encoders: precision, norms, and checks of fields and inputs."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclr.errors import UserError

AxisName = str | tuple[str, ...] | None
"""A mapped axis, or several, over which BatchNorm takes its statistics; None on one device."""

Precision = Literal["float32", "bfloat16"]
"""The type in which a network computes; its parameters stay in float32."""

Remat = Literal["none", "blocks", "dots"]
"""What is recomputed for the gradient: nothing, whole blocks, or all but matrix products."""


def compute_dtype(precision: Precision) -> Any:
    """The `dtype` argument of Flax layers.

    For "float32" it is None: Flax then promotes inputs and parameters, so that float64 stays
    float64. "bfloat16" casts both; stored parameters and batch statistics remain float32.
    """
    return jnp.bfloat16 if precision == "bfloat16" else None


def rematerialized(block: Callable[..., nn.Module], remat: Remat, **options: Any) -> Any:
    """A module class whose activations are recomputed for the gradient.

    Args:
      block: the class.
      remat: none: nothing is recomputed; blocks: everything; dots: everything except the outputs of
        linear layers and convolutions, which hold most of the computation.
      options: of `flax.linen.remat`.
    """
    if remat == "none":
        return block
    policy = _is_layer_output if remat == "dots" else None
    return nn.remat(block, policy=policy, **options)


def _is_layer_output(primitive: Any, *args: Any, **params: Any) -> bool:
    """A policy of `jax.checkpoint` that stores outputs of linear layers and convolutions.

    Products with batch dimensions, those of attention, are recomputed.
    """
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive is jax.lax.conv_general_dilated_p or dots(primitive, *args, **params)


def batch_norm(
    precision: Precision, axis_name: AxisName, train: bool, **options: Any
) -> "BatchNorm":
    """BatchNorm with PyTorch's constants and statistics over the global batch of `axis_name`.

    For any precision, statistics are computed and stored in float32 (float64 for float64 inputs).
    The running variance is the biased one; PyTorch's is unbiased.
    """
    return BatchNorm(train, axis_name, dtype=compute_dtype(precision), **options)


class BatchNorm(nn.Module):
    """BatchNorm of [b, ..., features], with the variables of Flax's; exact far from zero.

    Mean and variance are those of x - s, in one pass over x, where s is near the mean: the mean of
    the first row of each device, averaged over devices. Without s, E[x^2] - E[x]^2 cancels where
    the mean is far above the deviation. The first row is within sqrt(b) deviations of the mean of
    a device's b rows, so that no more than log2(b) bits are lost at worst. For x in bfloat16 or
    float16, s is 0: what float32 sums lose then is less than the rounding of x itself, and a TPU
    computes the sums in the same pass that writes x, which no s of this batch allows.

    Attributes:
      train: use the statistics of the batch, and update the running ones.
      axis_name: mapped axis over which the batch is spread.
      dtype: of the output; None for that of input and parameters.
      use_scale, use_bias: whether to multiply by a trained scale, to add a trained bias.
      scale_init: initializer of the scale.
    """

    train: bool
    axis_name: AxisName
    dtype: Any = None
    use_scale: bool = True
    use_bias: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        axes = tuple(range(x.ndim - 1))
        y, var = _widened(x), running_var.value
        if self.train:
            axis_name = None if self.is_initializing() else self.axis_name
            over_devices = lambda y: y if axis_name is None else jax.lax.pmean(y, axis_name)
            shift = jnp.zeros(shape, y.dtype)
            if not _is_narrow(x):
                shift = jax.lax.stop_gradient(over_devices(jnp.mean(y[0], axes[:-1])))
            y, mean, var = _centered(y - jnp.expand_dims(shift, axes), axes, over_devices)
            if not self.is_initializing():
                running_mean.value = 0.9 * running_mean.value + 0.1 * (shift + mean)
                running_var.value = 0.9 * running_var.value + 0.1 * var
        else:
            y = y - jnp.expand_dims(running_mean.value, axes)
        by = jnp.expand_dims(jax.lax.rsqrt(var + 1e-5), axes)
        return _scaled(self, y, by, x.dtype, self.use_scale, self.use_bias)


class LayerNorm(nn.Module):
    """LayerNorm of [..., features], with the parameters of Flax's; exact far from zero.

    Mean and variance are those of differences from the first feature, or for narrow inputs from 0,
    as in `BatchNorm`.

    Attributes:
      dtype: of the output; None for that of input and parameters.
    """

    dtype: Any = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = _widened(x)
        if not _is_narrow(x):
            y = y - jax.lax.stop_gradient(y[..., :1])
        y, _, var = _centered(y, (-1,), lambda y: y)
        by = jnp.expand_dims(jax.lax.rsqrt(var + 1e-6), -1)
        return _scaled(self, y, by, x.dtype, use_scale=True, use_bias=True)


def _is_narrow(x: jax.Array) -> bool:
    """Whether x has fewer bits than float32."""
    return jnp.finfo(x.dtype).bits < 32


def _widened(x: jax.Array) -> jax.Array:
    """x in float32, or float64 if it is."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _centered(
    x: jax.Array, axes: tuple[int, ...], over_devices: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x less its mean over axes and devices, that mean, and the variance, which needs a small mean.

    Both moments come from one pass over x and one collective.
    """
    mean, square = over_devices(jnp.stack([jnp.mean(x, axes), jnp.mean(x * x, axes)]))
    var = square - mean * mean
    return x - jnp.expand_dims(mean, axes), mean, jnp.maximum(var, jnp.zeros_like(var))


def _scaled(
    norm: BatchNorm | LayerNorm,
    y: jax.Array,
    by: jax.Array,
    dtype: Any,
    use_scale: bool,
    use_bias: bool,
) -> jax.Array:
    """Centered inputs times `by` and the trained scale, plus the trained bias, in a norm's type."""

    def param(name: str, init: nn.initializers.Initializer) -> jax.Array:
        value = norm.param(name, init, y.shape[-1:], jnp.float32)
        return jnp.expand_dims(value, tuple(range(y.ndim - 1)))

    dtypes = [dtype]
    if use_scale:
        scale = param("scale", norm.scale_init)
        by = by * scale
        dtypes.append(scale.dtype)
    y = y * by
    if use_bias:
        bias = param("bias", nn.initializers.zeros)
        y = y + bias
        dtypes.append(bias.dtype)
    return y.astype(norm.dtype or jnp.result_type(*dtypes))


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
