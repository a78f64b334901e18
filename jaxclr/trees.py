"""Functions of trees of arrays (arrays in nested dicts, tuples and lists) that need no JAX.

Worker processes use them to stack and slice examples without importing JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Tree = Any


def map_leaves(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Applies `function` to each leaf and the corresponding leaves of other trees."""
    if isinstance(tree, dict):
        return {
            key: map_leaves(function, tree[key], *(other[key] for other in others)) for key in tree
        }
    if isinstance(tree, tuple | list):
        return type(tree)(map_leaves(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def named_leaves(tree: Tree, name: str = "") -> list[tuple[str, Any]]:
    """The leaves with their names, such as "image" or "pair.0"; the name of a bare array is ""."""
    if not isinstance(tree, dict | tuple | list):
        return [(name, tree)]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [leaf for key, part in items for leaf in named_leaves(part, f"{name}.{key}".strip("."))]


def leaves(tree: Tree) -> list[Any]:
    """The leaves in order."""
    return [leaf for _, leaf in named_leaves(tree)]


def take(tree: Tree, rows: Any) -> Tree:
    """The rows (an index array or a slice) of every leaf."""
    return map_leaves(lambda leaf: leaf[rows], tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stacks trees of one structure along a new first axis."""
    return map_leaves(lambda *parts: np.stack([np.asarray(part) for part in parts]), *trees)


def size_of(tree: Tree) -> int:
    """Length of the first axis of the leaves."""
    return leaves(tree)[0].shape[0]


def images_of(examples: Tree) -> Any | None:
    """The images, uint8 [b, H, W, C], of a batch of images only; None for other data."""
    found = leaves(examples)
    if len(found) == 1 and found[0].ndim == 4 and found[0].dtype == np.uint8:
        return found[0]
    return None


def describe(tree: Tree) -> str:
    """Types and shapes, such as "float32 [128, 64]" or "{image: uint8 [8, 28, 28, 1]}"."""
    kinds = [(name, f"{leaf.dtype} {list(leaf.shape)}") for name, leaf in named_leaves(tree)]
    if len(kinds) == 1 and not kinds[0][0]:
        return kinds[0][1]
    return "{" + ", ".join(f"{name}: {kind}" for name, kind in kinds) + "}"
