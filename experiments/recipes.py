"""Recipes, and the table of a file's recipes."""

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import rich.console
import rich.table

from jaxclr.augment import Augmentation
from jaxclr.encoders import Encoder
from jaxclr.methods import Method
from jaxclr.steps.optimizers import Optimizer
from jaxclr.training import Config


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One method's row: what differs from the defaults of its file, and what was measured."""

    method: Method
    """With its hyper-parameters."""

    optimizer: Optimizer | None = None
    """None: the file's."""

    augmentation: Augmentation | None = None
    """None: the file's, with as many views as the method needs."""

    encoder: Encoder | nn.Module | None = None
    """None: the file's."""

    clip_norm: float | None = None
    """Largest global norm of the gradient; None for no limit."""

    time: str = "not run yet"
    """Of a run, and on what."""

    accuracy: str = "not run yet"
    """In percent, as the file's docstring says it is measured."""


def show(recipes: Mapping[str, Recipe], config: Callable[[str], Config]) -> None:
    """Prints a file's recipes."""
    table = rich.table.Table("method", "optimizer", "learning rate", "views", "time", "accuracy")
    for name, recipe in recipes.items():
        made = config(name)
        table.add_row(
            name,
            type(made.optimizer).__name__,
            f"{made.optimizer.learning_rate:g}",
            str(len(made.augmentation.views)),
            recipe.time,
            recipe.accuracy,
        )
    rich.console.Console().print(table)
