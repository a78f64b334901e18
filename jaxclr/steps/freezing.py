"""Frozen parts of a state: variables that training leaves as they are, bit by bit."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclr.encoders.custom import NnxModule
from jaxclr.encoders.layers import BatchNorm
from jaxclr.errors import UserError

Array = jax.Array
Tree = Any
Path = tuple[Any, ...]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern is that of a variable, or of a module that contains it.

    >>> matches("encoder/conv1/kernel", ["encoder/conv*"])
    True
    """
    return any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}/*")
        for pattern in patterns
    )


def name_of(path: Path) -> str:
    """The path of a leaf in nested dicts, such as "encoder/conv1/kernel"."""
    return "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def check_patterns(patterns: tuple[str, ...], params: Tree, batch_stats: Tree) -> None:
    """Raises UserError if a pattern matches no variable, or all parameters are frozen."""
    trained, statistics = (
        [name_of(path) for path, _ in jax.tree.leaves_with_path(tree)]
        for tree in (params, batch_stats)
    )
    names = trained + statistics
    for pattern in patterns:
        if not any(matches(name, (pattern,)) for name in names):
            known = sorted({"/".join(name.split("/")[:2]) for name in names})
            raise UserError(
                f"freeze: '{pattern}' matches no variable. There are {', '.join(known)}."
            )
    if all(matches(name, patterns) for name in trained):
        raise UserError(
            f"freeze: {', '.join(patterns)} leaves no parameter to train; freeze fewer parts."
        )


def keep_frozen(
    old: Tree,
    new: Tree,
    patterns: tuple[str, ...],
    first_steps: Mapping[str, int],
    step: Array,
) -> Tree:
    """The new tree, with the frozen leaves of the old one.

    Args:
      old: a tree whose leaves are named by the dicts on their path: parameters, statistics, or the
        state of an optimizer, whose names end in those of the parameters.
      new: the same tree after a step.
      patterns: of variables that are frozen throughout.
      first_steps: for patterns of variables that are frozen at first, the number of these steps.
      step: int32 [], steps taken before.
    """

    def leaf(path: Path, before: Array, after: Array) -> Array:
        name = name_of(path)
        if matches(name, patterns):
            return before
        for pattern, count in first_steps.items():
            if matches(name, (pattern, f"*/{pattern}")):
                return jnp.where(step < count, before, after)
        return after

    if not patterns and not first_steps:
        return new
    return jax.tree.map_with_path(leaf, old, new)


def hold_constant(params: Tree, patterns: tuple[str, ...]) -> Tree:
    """Parameters whose frozen leaves have no gradient."""
    stop = jax.lax.stop_gradient
    return jax.tree.map_with_path(
        lambda path, leaf: stop(leaf) if matches(name_of(path), patterns) else leaf, params
    )


def frozen_norms(patterns: tuple[str, ...]) -> Callable[..., Any]:
    """For `nn.intercept_methods`: frozen norms use their running statistics."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        is_frozen = lambda *path: matches("/".join((*module.path, *path, "mean")), patterns)
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, NnxModule):
            return call(*args, **kwargs, is_frozen=is_frozen)
        if not isinstance(module, BatchNorm | nn.BatchNorm) or not is_frozen():
            return call(*args, **kwargs)
        own = isinstance(module, BatchNorm)
        field, value = ("train", False) if own else ("use_running_average", True)
        before = getattr(module, field)
        object.__setattr__(module, field, value)
        try:
            return call(*args, **kwargs)
        finally:
            object.__setattr__(module, field, before)

    return intercept
