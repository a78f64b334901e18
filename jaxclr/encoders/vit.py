"""Vision transformers, with the fixed positions of MoCo v3 or the learned ones of timm."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge

from jaxclr.encoders.layers import AxisName, LayerNorm, Precision, check_images, compute_dtype
from jaxclr.errors import UserError
from jaxclr.fields import check_fields

_WIDTHS = {"small": 384, "base": 768}


@dataclasses.dataclass(frozen=True)
class ViT:
    """ViT-S or ViT-B: images [b, h, w, c] to representations [b, 384 or 768].

    Both have 12 blocks. The representation is the class token after the last norm.

    Args:
      size: Width: 384 for small, 768 for base.
      patch: Side of a patch in pixels; it must divide the sides of the images.
      heads: Attention heads, a divisor of the width: 12 in MoCo v3, 6 in the ViT-S of DeiT, timm.
      positions: Position embeddings. Fixed ones (sincos) fit images of every size; learned ones are
        parameters, and fit images of one size.
      frozen_patch_embedding: Keep the random initial patch embedding by stopping its gradient,
        which stabilizes training in MoCo v3. The optimizer must exclude it from weight decay.
      dtype: Precision of the computation; parameters, norms and softmax are always float32.
      remat: Recompute blocks for the gradient instead of storing their activations. This saves
        memory for about a third more computation.

    Raises:
      UserError: a field is invalid, or (when called) the patch does not divide the images, or the
        number of patches differs from that of the learned positions.

    References:
      Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021
      (arXiv:2104.02057).
    """

    size: Literal["small", "base"] = "small"
    patch: Annotated[int, Ge(1)] = 16
    heads: Annotated[int, Ge(1)] = 12
    positions: Literal["sincos", "learned"] = "sincos"
    frozen_patch_embedding: bool = False
    dtype: Precision = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "ViT")
        if self.width % self.heads:
            raise UserError(
                f"ViT.heads must be a divisor of the width, {self.width}, got {self.heads}."
            )

    @property
    def width(self) -> int:
        """Numbers in a token."""
        return _WIDTHS[self.size]

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(images, train); it has no batch statistics."""
        del axis_name
        return ViTModule(
            width=self.width,
            depth=12,
            heads=self.heads,
            patch=self.patch,
            positions=self.positions,
            frozen_patch_embedding=self.frozen_patch_embedding,
            dtype=self.dtype,
            remat=self.remat,
        )


class ViTModule(nn.Module):
    """A pre-norm transformer over a class token and the patches of an image."""

    width: int
    depth: int
    heads: int
    patch: int
    frozen_patch_embedding: bool
    dtype: Precision
    positions: Literal["sincos", "learned"] = "sincos"
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        del train  # neither dropout nor batch statistics
        check_images(images)
        batch, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            raise UserError(
                f"Images of {height} x {width} pixels cannot be cut into patches of {self.patch}; "
                f"crop them to a multiple of {self.patch}, or set ViT.patch to a divisor of "
                f"{math.gcd(height, width)}."
            )
        rows, columns = height // self.patch, width // self.patch

        x = _linear(self.width, self.dtype, "patch_embedding")(patches(images, self.patch))
        if self.frozen_patch_embedding:
            x = jax.lax.stop_gradient(x)
        if self.positions == "sincos":
            x = x + jnp.asarray(sincos_positions(rows, columns, self.width), x.dtype)[None]
        cls = self.param("cls", nn.initializers.normal(1e-6), (1, 1, self.width))
        cls = jnp.broadcast_to(cls.astype(x.dtype), (batch, 1, self.width))
        x = jnp.concatenate([cls, x], axis=1)
        if self.positions == "learned":
            x = x + self._learned_positions(x.shape[1], height, width).astype(x.dtype)
        block = nn.remat(Block) if self.remat else Block
        for index in range(self.depth):
            x = block(self.heads, self.dtype, name=f"block_{index}")(x)
        return LayerNorm(compute_dtype(self.dtype), name="norm")(x[:, 0])

    def _learned_positions(self, tokens: int, height: int, width: int) -> jax.Array:
        """A parameter for each token, the class token first: [1, tokens, width]."""
        if self.has_variable("params", "positions"):
            learned = self.get_variable("params", "positions").shape[1]
            if learned != tokens:
                raise UserError(
                    f"Images of {height} x {width} pixels have {tokens - 1} patches, and the "
                    f"learned positions are for {learned - 1}; resize the images to {learned - 1} "
                    f"patches of {self.patch}."
                )
        return self.param("positions", nn.initializers.normal(0.02), (1, tokens, self.width))


class Block(nn.Module):
    """Self-attention, then an MLP four times as wide, on normed tokens: [b, n, d] to the same."""

    heads: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, tokens, width = x.shape
        y = LayerNorm(compute_dtype(self.dtype), name="norm1")(x)
        y = _linear(3 * width, self.dtype, "qkv", kernel_init=_qkv_init)(y)
        y = y.reshape(batch, tokens, 3, self.heads, width // self.heads)
        y = attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        x = x + _linear(width, self.dtype, "proj")(y.reshape(batch, tokens, width))
        y = LayerNorm(compute_dtype(self.dtype), name="norm2")(x)
        y = nn.gelu(_linear(4 * width, self.dtype, "fc1")(y), approximate=False)
        return x + _linear(width, self.dtype, "fc2")(y)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Scaled dot-product attention of [b, n, heads, d], with its softmax in float32 or float64.

    `jax.nn.dot_product_attention` computes it in float32 even for float64 inputs.
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide)
    weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def patches(images: jax.Array, patch: int) -> jax.Array:
    """The patches of images [b, h, w, c], row by row: [b, hw / patch^2, patch * patch * c]."""
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.swapaxes(2, 3).reshape(batch, -1, patch * patch * channels)


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
    r"""Fixed positions of a grid of patches, row by row: [rows * columns, width].

    .. math:: [\sin r\omega, \cos r\omega, \sin c\omega, \cos c\omega]

    for row r and column c, with omega_i = 10000^(-4i / width); width must be a multiple of 4.
    """
    quarter = width // 4
    omega = 10000.0 ** (-np.arange(quarter) / quarter)
    r, c = np.divmod(np.arange(rows * columns), columns)
    r, c = np.outer(r, omega), np.outer(c, omega)
    return np.concatenate([np.sin(r), np.cos(r), np.sin(c), np.cos(c)], axis=1)


def _linear(features: int, dtype: Precision, name: str, **options: Any) -> nn.Dense:
    options = {"kernel_init": nn.initializers.xavier_uniform(), **options}
    return nn.Dense(features, dtype=compute_dtype(dtype), name=name, **options)


def _qkv_init(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Xavier uniform for query, key and value as three separate matrices."""
    bound = math.sqrt(6 / (shape[0] + shape[1] // 3))
    return jax.random.uniform(key, shape, dtype, -bound, bound)
