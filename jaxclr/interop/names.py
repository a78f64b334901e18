"""Names and layouts of an encoder's arrays in torchvision (ResNet) and timm (ViT)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from jaxclr.encoders import ResNet, ViT
from jaxclr.encoders.vit import sincos_positions
from jaxclr.errors import UserError

Tree = Any
Path = tuple[str, ...]

POSITIONS = "pos_embed"

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "gamma": "gamma",
}
_VIT_MODULES = {
    "patch_embedding": "patch_embed.proj",
    "qkv": "attn.qkv",
    "proj": "attn.proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}
_VIT_PARAMETERS = {"cls": "cls_token", "positions": POSITIONS, "registers": "reg_token"}


def to_torch(
    spec: ResNet | ViT, variables: Tree, *, side: int | None = None
) -> dict[str, np.ndarray]:
    """An encoder's arrays under PyTorch's names and in its layouts.

    timm's ViTs with registers have positions of patches alone; the class token's is added to it.
    A mask token, which only training uses, is left out.

    Args:
      spec: the encoder.
      variables: its "params" and "batch_stats".
      side: of the images in pixels, for whose patches a ViT's fixed positions are written out;
        None: without them.

    Returns:
      Arrays of the variables' types, such as "layer1.0.conv1.weight" [out, in, height, width].

    Raises:
      UserError: the encoder is neither a ResNet nor a ViT.
    """
    check_named(spec)
    arrays = {
        torch_name(spec, path): np.ascontiguousarray(_to_torch(spec, path, np.asarray(leaf)))
        for path, leaf in _flat(variables).items()
        if path[-1] != "mask_token"
    }
    if isinstance(spec, ViT) and spec.positions == "sincos" and side is not None:
        width = arrays["cls_token"].shape[-1]
        arrays[POSITIONS] = fixed_positions(side // spec.patch, width).astype(np.float32)
    if isinstance(spec, ViT) and spec.registers and POSITIONS in arrays:
        arrays["cls_token"] = arrays["cls_token"] + arrays[POSITIONS][:, :1]
        arrays[POSITIONS] = arrays[POSITIONS][:, 1:].copy()
    return arrays


def from_torch(spec: ResNet | ViT, arrays: Mapping[str, np.ndarray], like: Tree) -> Tree:
    """Variables from arrays of those names and layouts, with a position of the class token.

    Args:
      spec: the encoder.
      arrays: at least those that `torch_shapes` names.
      like: variables with the shapes and types that are wanted.
    """
    flat = {
        path: np.ascontiguousarray(
            _from_torch(spec, path, arrays[torch_name(spec, path)]), leaf.dtype
        )
        for path, leaf in _flat(like).items()
    }
    return traverse_util.unflatten_dict(flat)


def torch_shapes(spec: ResNet | ViT, like: Tree) -> dict[str, tuple[int, ...]]:
    """The names and shapes of an encoder in PyTorch, from the shapes of its variables."""
    shapes = {}
    for path, leaf in _flat(like).items():
        without_memory = np.broadcast_to(np.False_, leaf.shape)
        shapes[torch_name(spec, path)] = _to_torch(spec, path, without_memory).shape
    return shapes


def torch_name(spec: ResNet | ViT, path: Path) -> str:
    """A variable's name: ("params", "layer1_0", "conv1", "kernel") is layer1.0.conv1.weight."""
    *modules, leaf = path[1:]
    if isinstance(spec, ResNet):
        return ".".join([*(module.replace("_", ".") for module in modules), _LEAVES[leaf]])
    if not modules:
        return _VIT_PARAMETERS[leaf]
    modules = [_VIT_MODULES.get(module, module.replace("block_", "blocks.")) for module in modules]
    return ".".join([*modules, _LEAVES[leaf]])


def fixed_positions(grid: int, width: int) -> np.ndarray:
    """Fixed positions of a square grid as MoCo v3 keeps them, [1, n, width], class token first."""
    return np.concatenate([np.zeros((1, width)), sincos_positions(grid, grid, width)])[None]


def check_named(spec: Any) -> ResNet | ViT:
    """The encoder, if torchvision or timm has names for its arrays; else raises UserError."""
    if not isinstance(spec, ResNet | ViT):
        raise UserError(
            f"{type(spec).__name__} has no counterpart in torchvision or timm, whose names these "
            "weights would bear; a ResNet or a ViT has. Export it with --to stablehlo."
        )
    return spec


def _flat(tree: Tree) -> Mapping[Path, Any]:
    """Leaves by their path."""
    return traverse_util.flatten_dict(dict(tree))


def _to_torch(spec: ResNet | ViT, path: Path, x: np.ndarray) -> np.ndarray:
    if isinstance(spec, ViT) and path[-2:] == ("patch_embedding", "kernel"):
        patch = spec.patch
        return x.reshape(patch, patch, -1, x.shape[-1]).transpose(3, 2, 0, 1)
    if path[-1] == "kernel":
        return x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T
    return x


def _from_torch(spec: ResNet | ViT, path: Path, x: np.ndarray) -> np.ndarray:
    if path[-2:] == ("patch_embedding", "kernel"):
        return x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0])
    if path[-1] == "kernel":
        return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
    return x
