"""Learned positions of a ViT for another number of patches."""

import math
from typing import Literal

import jax
import numpy as np

Rule = Literal["timm", "dinov2"]


def resize_positions(positions: np.ndarray, tokens: int, rule: Rule = "timm") -> np.ndarray:
    """Learned positions [1, n, width] for another number of tokens, the class token's first.

    The square grid of patches is interpolated, bicubic. Other grids are returned unchanged.

    Args:
      positions: of the class token and a square grid of patches.
      tokens: number of tokens, with the class token.
      rule: timm: with antialiasing, which timm and DINOv2's models with registers use; dinov2: that
        of DINOv2's models without registers, see `_dinov2_weights`.
    """
    sides = [math.isqrt(count - 1) for count in (positions.shape[1], tokens)]
    if tokens == positions.shape[1] or [side**2 + 1 for side in sides] != [
        positions.shape[1],
        tokens,
    ]:
        return positions
    old, new = sides
    width = positions.shape[-1]
    grid = positions[:, 1:].reshape(old, old, width)
    if rule == "timm":
        resized = np.asarray(jax.image.resize(grid, (new, new, width), "bicubic"))
    else:
        weights = _dinov2_weights(old, new)
        resized = np.einsum("ri,cj,ijd->rcd", weights, weights, grid).astype(positions.dtype)
    return np.concatenate([positions[:, :1], resized.reshape(1, -1, width)], axis=1)


def _dinov2_weights(old: int, new: int) -> np.ndarray:
    """Weights of a row of `old` patches for each of `new`: [new, old].

    They are those of PyTorch's `interpolate(mode="bicubic", scale_factor=(new + 0.1) / old)`: Keys'
    kernel with a = -0.75, no antialiasing, and the patches at the border repeated.
    """
    places = (np.arange(new) + 0.5) * old / (new + 0.1) - 0.5
    taps = np.floor(places)[:, None] + np.arange(-1, 3)
    t = np.abs(places[:, None] - taps)
    a = -0.75
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    weights = np.zeros((new, old))
    rows = np.broadcast_to(np.arange(new)[:, None], taps.shape)
    np.add.at(weights, (rows, np.clip(taps.astype(int), 0, old - 1)), np.where(t <= 1, near, far))
    return weights
