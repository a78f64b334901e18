"""A dry run of a configuration with shapes alone.

Names the part that does not fit before anything is compiled.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from jaxclr import trees
from jaxclr.encoders.custom import towers_of
from jaxclr.errors import UserError
from jaxclr.steps.batches import Batch
from jaxclr.steps.freezing import check_patterns
from jaxclr.steps.recipe import AXIS, Recipe
from jaxclr.steps.state import init_state
from jaxclr.steps.step import train_step
from jaxclr.steps.views import plain_view, view_shapes

Tree = Any
COLLECTIONS = {"params", "batch_stats"}  # the variable collections of a state


def check_parts(config: Any, recipe: Recipe, examples: Tree, *, devices: int) -> None:
    """Evaluates views, encoder, heads, objective and optimizer on the shapes of a batch.

    Args:
      config: the `Config`, for the names of its parts.
      recipe: its recipe.
      examples: shapes and types of a batch, [b, ...].
      devices: number of devices that share a batch.

    Raises:
      UserError: a part fails on its input, or the next part fails on its output; the message names
        the part. Or the method cannot learn from a batch of one, or a BatchNorm sees one row.
    """
    count = trees.size_of(examples)
    if count == 1 and not recipe.method.one_row:
        raise UserError(
            f"{type(recipe.method).__name__} compares the images of a batch, and batch_size is 1; "
            "set --batch-size to 2 or more."
        )
    for number, view in enumerate(config.augmentation.views):
        _check_view(number, view, examples)
    shapes = view_shapes(examples, recipe)
    towers = towers_of(config.encoder)
    if len(towers) > 1 and len(towers) != len(shapes):
        raise UserError(
            f"encoder is a tuple of {len(towers)}, one for each view, and the augmentation has "
            f"{len(shapes)} views; give as many."
        )
    for number in range(len(shapes)):
        _check_encoder(number, towers[number % len(towers)], recipe, shapes[number])
    for number, tower in enumerate(towers):
        plain = lambda x, number=number: plain_view(x, recipe, number)
        with _failing_with(f"augmentation.plain cannot take the data, {trees.describe(examples)}"):
            seen = jax.eval_shape(plain, examples)
        _check_encoder(number, tower, recipe, seen, gives="evaluation")
    method = type(recipe.method).__name__
    with _failing_with(f"method {method} and its heads cannot be built"):
        state = jax.eval_shape(
            lambda: init_state(recipe._replace(optimizer=optax.identity()), examples)
        )
    if config.freeze:
        check_patterns(config.freeze, state.params, state.batch_stats)
    ids = jax.ShapeDtypeStruct((count,), jnp.int32)
    batch = Batch(examples, ids, ids)
    with _failing_with(f"optimizer {_name(config.optimizer)} cannot update the parameters"):
        state = state.replace(opt_state=jax.eval_shape(recipe.optimizer.init, state.params))
        updates, _ = jax.eval_shape(
            recipe.optimizer.update, state.params, state.opt_state, state.params
        )
        if jax.tree.structure(updates) != jax.tree.structure(state.params):
            raise UserError("its updates differ from them in structure")
    _check_memory(state)
    with _failing_with(f"method {method} cannot take {_outputs(shapes)}"):
        _, metrics = _on_one(
            lambda s, b: train_step(s, b, recipe=recipe, axis_name=AXIS), state, batch
        )
        if metrics["loss"].shape:
            raise UserError(f"its objective gives {trees.describe(metrics['loss'])}, not a scalar")
    if count == devices * recipe.micro_batches:
        _check_norms(recipe, state, examples, devices)


def _check_norms(recipe: Recipe, state: Tree, examples: Tree, devices: int) -> None:
    """Refuses norms whose statistics are those of one value, where a device embeds one row."""
    norms = {path[:-1] for path in traverse_util.flatten_dict(state.batch_stats)}
    seen: dict[tuple[str, ...], int] = {}

    def record(call: Callable[..., Tree], args: Any, kwargs: Any, context: Any) -> Tree:
        if context.module.path in norms and context.method_name == "__call__":
            shared = getattr(context.module, "axis_name", None) is not None
            seen[context.module.path] = math.prod(args[0].shape[:-1]) * (devices if shared else 1)
        return call(*args, **kwargs)

    def embed(state: Tree, views: tuple[Tree, ...]) -> None:
        for number, view in enumerate(views):
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            recipe.network.apply(
                variables, view, train=True, view=number, mutable=True, rngs={"dropout": key}
            )

    key = jax.random.key(0)
    one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), examples
    )
    with nn.intercept_methods(record):
        _on_one(embed, state, view_shapes(one, recipe))
    if single := [path for path, values in seen.items() if values == 1]:
        micro = " and a micro-batch" * (recipe.micro_batches > 1)
        raise UserError(
            f"The norm {'/'.join(single[0])} sees one row of each device{micro}, and the norm of "
            "one row is constant; set a larger --batch-size, fewer devices or --micro-batches, or "
            "synchronize the norm with axis_name."
        )


def _check_memory(state: Tree) -> None:
    """Raises UserError if a state is larger than the memory of this machine."""
    arrays = jax.tree.leaves((state.params, state.batch_stats, state.opt_state))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in arrays)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise UserError(
            f"Parameters and optimizer take {size / 1e9:.1f} GB, and this machine has "
            f"{memory / 1e9:.1f} GB; choose a smaller encoder or smaller heads."
        )


def _on_one(function: Callable[..., Tree], *args: Tree) -> Tree:
    """The output shapes of a per-device function when one device has the complete batch."""
    mesh = AbstractMesh((1,), (AXIS,), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    return jax.eval_shape(mapped, *args)


def _check_view(number: int, view: Callable[..., Tree], examples: Tree) -> None:
    count, who = trees.size_of(examples), f"view {number + 1} ({_name(view)})"
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), count))
    with _failing_with(f"{who} cannot take the data, {trees.describe(examples)}"):
        made = jax.eval_shape(view, keys, examples)
    wrong = [leaf for leaf in jax.tree.leaves(made) if leaf.shape[:1] != (count,)]
    if wrong or not jax.tree.leaves(made):
        got = trees.describe(wrong[0]) if wrong else "nothing"
        raise UserError(
            f"{who} gives {got} for a batch of {count}; it must give arrays [{count}, ...]."
        )


def _check_encoder(number: int, encoder: Any, recipe: Recipe, x: Tree, gives: str = "") -> None:
    got = f"{gives or f'view {number + 1}'} gives {_describe(x)}"
    who = f"the encoder {_name(encoder)}"

    def represent(x: Tree) -> tuple[jax.Array, Tree]:
        method = lambda network, x: network.represent(x, False, number)
        return recipe.network.init_with_output(jax.random.key(0), x, method=method)

    with _failing_with(f"{got}, and {who} cannot take it"):
        representation, variables = jax.eval_shape(represent, x)
    leaves = jax.tree.leaves(representation)
    good = len(leaves) == 1 and leaves[0] is representation and representation.ndim == 2
    if not good or not jnp.issubdtype(representation.dtype, jnp.floating):
        raise UserError(
            f"{got}, for which {who} gives {_describe(representation)}; it must give floats [b, F]."
        )
    if unknown := set(variables) - COLLECTIONS:
        raise UserError(
            f"{who} has variables in {', '.join(sorted(unknown))}; a state stores those in params "
            "and batch_stats only."
        )


@contextlib.contextmanager
def _failing_with(sentence: str) -> Iterator[None]:
    """Turns any exception into a UserError: the sentence and the first line of the reason."""
    try:
        yield
    except UserError as error:
        if str(error)[:1].islower():
            raise UserError(f"{sentence}: {error}.") from error
        raise UserError(f"{sentence}: {error}") from error
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise UserError(f"{sentence}: {reason.rstrip('.')}.") from error


def _outputs(shapes: tuple[Tree, ...]) -> str:
    return f"the outputs of {len(shapes)} view{'s' * (len(shapes) > 1)}"


def _describe(tree: Tree) -> str:
    try:
        return trees.describe(tree)
    except (AttributeError, TypeError):
        return type(tree).__name__


def _name(part: Any) -> str:
    """The name of a function, or of an object's class."""
    return getattr(part, "__name__", type(part).__name__)
