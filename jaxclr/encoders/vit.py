"""Vision transformers, with the fixed positions of MoCo v3 or the learned ones of timm."""

import dataclasses
import functools
import math
from typing import Annotated, Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge, Gt, Interval, MultipleOf

from jaxclr.encoders.layers import (
    AxisName,
    LayerNorm,
    Precision,
    Remat,
    check_images,
    compute_dtype,
    rematerialized,
)
from jaxclr.errors import UserError
from jaxclr.fields import check_fields


class Size(NamedTuple):
    """A published size: numbers in a token, blocks, heads, side of a patch, and kind of MLP."""

    width: int
    depth: int
    heads: int
    patch: int
    mlp: Literal["gelu", "swiglu"] = "gelu"


SIZES = {
    "small": Size(384, 12, 12, 16),
    "base": Size(768, 12, 12, 16),
    "large": Size(1024, 24, 16, 16),
    "huge": Size(1280, 32, 16, 14),
    "giant": Size(1536, 40, 24, 14, "swiglu"),
}


@dataclasses.dataclass(frozen=True)
class ViT:
    """ViT-S, B, L, H or g: images [b, h, w, c] to representations [b, width].

    The representation is the class token after the last norm. The published sizes are:

    | size  | width | depth | heads | patch | mlp    | parameters | of      |
    |-------|-------|-------|-------|-------|--------|------------|---------|
    | small | 384   | 12    | 12    | 16    | gelu   | 22 M       | MoCo v3 |
    | base  | 768   | 12    | 12    | 16    | gelu   | 86 M       | ViT     |
    | large | 1024  | 24    | 16    | 16    | gelu   | 304 M      | ViT     |
    | huge  | 1280  | 32    | 16    | 14    | gelu   | 632 M      | ViT     |
    | giant | 1536  | 40    | 24    | 14    | swiglu | 1.1 B      | DINOv2  |

    Args:
      size: The default width and depth, and in Python the defaults of patch, heads and mlp. On the
        command line --encoder vit_large selects all of them.
      patch: Side of a patch in pixels; it must divide the sides of the images.
      heads: Attention heads, a divisor of the width; the ViT-S of DeiT, timm and DINOv2 has 6.
      positions: Position embeddings. Fixed ones (sincos) fit images of every size; learned ones are
        parameters, and fit images of one size.
      frozen_patch_embedding: Keep the random initial patch embedding by stopping its gradient,
        which stabilizes training in MoCo v3. The optimizer must exclude it from weight decay.
      dtype: Precision of the computation; parameters, norms and softmax are always float32.
      remat: What is stored for the gradient. none: all activations; blocks: the input of each
        block, for about a third more computation; dots: also the outputs of its linear layers, so
        that attention, norms and activation functions are recomputed.
      mlp: gelu: two layers, the hidden one four times as wide; swiglu: silu(a) * b for halves a and
        b of the first layer, with two thirds of that width, rounded up to a multiple of 8.
      layer_scale: Initial value of the trained scales of each residual branch; None for no scales.
        DINOv2 trains with 1e-5.
      drop_path: Stochastic depth: the share of images for which the last block's branches are left
        out in training. It increases linearly from 0 at the first block, as in timm. Each image
        has its own draws. Momentum encoders, evaluation and fine-tuning use all branches.
      registers: Additional trained tokens without positions, between class token and patches.
      width: Numbers in a token, a multiple of 4; None: those of the size.
      depth: Number of blocks; None: that of the size.

    Raises:
      UserError: a field is invalid, or (when called) the patch does not divide the images, or the
        number of patches differs from that of the learned positions.

    References:
      Dosovitskiy et al., An Image is Worth 16x16 Words, 2021 (arXiv:2010.11929).
      Chen et al., An Empirical Study of Training Self-Supervised Vision Transformers, 2021
      (arXiv:2104.02057).
      Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023
      (arXiv:2304.07193).
      Darcet et al., Vision Transformers Need Registers, 2023 (arXiv:2309.16588).
    """

    size: Literal["small", "base", "large", "huge", "giant"] = "small"
    patch: Annotated[int, Ge(1)] = None  # pyright: ignore[reportAssignmentType]  from the size
    heads: Annotated[int, Ge(1)] = None  # pyright: ignore[reportAssignmentType]
    positions: Literal["sincos", "learned"] = "sincos"
    frozen_patch_embedding: bool = False
    dtype: Precision = "float32"
    remat: Remat = "none"
    mlp: Literal["gelu", "swiglu"] = None  # pyright: ignore[reportAssignmentType]
    layer_scale: Annotated[float, Gt(0)] | None = None
    drop_path: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    registers: Annotated[int, Ge(0)] = 0
    width: Annotated[int, Ge(4), MultipleOf(4)] | None = None
    depth: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        for name in ("patch", "heads", "mlp"):
            if getattr(self, name) is None and self.size in SIZES:
                object.__setattr__(self, name, getattr(SIZES[self.size], name))
        check_fields(self, "ViT")
        if self.features % self.heads:
            raise UserError(
                f"ViT.heads must be a divisor of the width, {self.features}, got {self.heads}."
            )

    @property
    def features(self) -> int:
        """Numbers in a token, and in a representation."""
        return self.width or SIZES[self.size].width

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(images, train); it has no batch statistics."""
        del axis_name
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["size"]
        fields |= {"width": self.features, "depth": self.depth or SIZES[self.size].depth}
        return ViTModule(**fields)


class ViTModule(nn.Module):
    """A pre-norm transformer over a class token, registers and the patches of an image.

    Stochastic depth needs train=True and a key "drop_path" among the rngs.
    """

    width: int
    depth: int
    heads: int
    patch: int
    frozen_patch_embedding: bool
    dtype: Precision
    positions: Literal["sincos", "learned"] = "sincos"
    remat: Remat = "none"
    mlp: Literal["gelu", "swiglu"] = "gelu"
    layer_scale: float | None = None
    drop_path: float = 0.0
    registers: int = 0

    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return self._encode(images, train)

    def tokens(
        self, images: jax.Array, train: bool, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Representations [b, width], and the normed patch tokens [b, rows, columns, width].

        Initializing with this method adds the parameter `mask_token`.

        Args:
          images: [b, h, w, c].
          train: whether branches are left out.
          mask: bool [b, rows, columns], of patches whose embedding is replaced by the mask token.
        """
        x = self._encode(images, train, mask, patch_tokens=True)
        grid = (side // self.patch for side in images.shape[1:3])
        return x[:, 0], x[:, 1 + self.registers :].reshape(len(x), *grid, self.width)

    @nn.compact
    def _encode(
        self,
        images: jax.Array,
        train: bool,
        mask: jax.Array | None = None,
        patch_tokens: bool = False,
    ) -> jax.Array:
        """The class token [b, width] after the last norm, or all tokens [b, n, width]."""
        check_images(images)
        height, width = images.shape[1:3]
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
        if patch_tokens:
            token = self._tokens("mask_token", 1, 0.0, x)
            x = x if mask is None else jnp.where(mask.reshape(len(x), -1, 1), token, x)
        if self.positions == "sincos":
            x = x + jnp.asarray(sincos_positions(rows, columns, self.width), x.dtype)[None]
        x = jnp.concatenate([self._tokens("cls", 1, 1e-6, x), x], axis=1)
        if self.positions == "learned":
            x = x + self._learned_positions(x.shape[1], height, width).astype(x.dtype)
        if self.registers:
            registers = self._tokens("registers", self.registers, 1e-6, x)
            x = jnp.concatenate([x[:, :1], registers, x[:, 1:]], axis=1)
        block = functools.partial(
            rematerialized(Block, self.remat), self.heads, self.dtype, self.mlp, self.layer_scale
        )
        kept = [None] * self.depth
        if train and self.drop_path and self.has_rng("drop_path"):
            draws = jax.random.uniform(self.make_rng("drop_path"), (len(x), self.depth, 2))
            kept = drop_paths(draws, self.drop_path).astype(x.dtype)
        for index in range(self.depth):
            x = block(name=f"block_{index}")(x, kept[index])
        return LayerNorm(compute_dtype(self.dtype), name="norm")(x if patch_tokens else x[:, 0])

    def _tokens(self, name: str, count: int, deviation: float, like: jax.Array) -> jax.Array:
        """Trained tokens for every image of a batch [b, n, width]: [b, count, width]."""
        init = nn.initializers.normal(deviation)
        tokens = self.param(name, init, (1, count, self.width)).astype(like.dtype)
        return jnp.broadcast_to(tokens, (len(like), count, self.width))

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
    """Self-attention, then an MLP, on normed tokens: [b, n, d] to the same.

    Attributes:
      heads: of the attention.
      dtype: precision of the computation.
      mlp: as of `ViT`.
      layer_scale: likewise.
    """

    heads: int
    dtype: Precision
    mlp: Literal["gelu", "swiglu"] = "gelu"
    layer_scale: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """With `kept` [2, b], the branches of each image are multiplied by it."""
        batch, tokens, width = x.shape
        y = LayerNorm(compute_dtype(self.dtype), name="norm1")(x)
        y = _linear(3 * width, self.dtype, "qkv", parts=3)(y)
        y = y.reshape(batch, tokens, 3, self.heads, width // self.heads)
        y = attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
        y = _linear(width, self.dtype, "proj")(y.reshape(batch, tokens, width))
        x = x + self._scaled(y, "ls1", None if kept is None else kept[0])
        y = LayerNorm(compute_dtype(self.dtype), name="norm2")(x)
        if self.mlp == "gelu":
            y = nn.gelu(_linear(4 * width, self.dtype, "fc1")(y), approximate=False)
        else:
            hidden = -(-(8 * width // 3) // 8) * 8
            y, gated = jnp.split(_linear(2 * hidden, self.dtype, "fc1", parts=2)(y), 2, axis=-1)
            y = nn.silu(y) * gated
        y = _linear(width, self.dtype, "fc2")(y)
        return x + self._scaled(y, "ls2", None if kept is None else kept[1])

    def _scaled(self, y: jax.Array, name: str, kept: jax.Array | None) -> jax.Array:
        if self.layer_scale is not None:
            y = LayerScale(self.layer_scale, name=name)(y)
        return y if kept is None else y * kept[:, None, None]


class LayerScale(nn.Module):
    """A trained scale for each feature of [..., d], with one initial value."""

    initial: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gamma = self.param("gamma", nn.initializers.constant(self.initial), x.shape[-1:])
        return (x * jnp.expand_dims(gamma, tuple(range(x.ndim - 1)))).astype(x.dtype)


def drop_paths(draws: jax.Array, rate: float) -> jax.Array:
    """Factors of stochastic depth: 0, or 1 / (1 - rate of the block).

    Args:
      draws: uniform in [0, 1), [b, depth, 2]: of b images, for both branches of each block.
      rate: of the last block; it increases linearly from 0 at the first.

    Returns:
      The factors, [depth, 2, b].
    """
    rates = jnp.linspace(0, rate, draws.shape[1])[:, None, None]
    return (jnp.moveaxis(draws, 0, -1) >= rates) / (1 - rates)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Scaled dot-product attention of [b, n, heads, d], with its softmax in float32 or float64.

    `jax.nn.dot_product_attention` selects the implementation. Its softmax is in float32 even for
    float64 inputs, which are therefore computed here.
    """
    if q.dtype != jnp.float64:
        return jax.nn.dot_product_attention(q, k, v)
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5, axis=-1)
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


def _linear(features: int, dtype: Precision, name: str, parts: int = 1) -> nn.Dense:
    """A linear layer, initialized as `parts` separate matrices."""
    init = functools.partial(_xavier_uniform, parts=parts)
    return nn.Dense(features, dtype=compute_dtype(dtype), kernel_init=init, name=name)


def _xavier_uniform(
    key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32, *, parts: int
) -> jax.Array:
    """Xavier uniform for each of several matrices side by side, such as query, key and value."""
    bound = math.sqrt(6 / (shape[0] + shape[1] // parts))
    return jax.random.uniform(key, shape, dtype, -bound, bound)
