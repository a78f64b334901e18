"""`jaxclr list`: what can be chosen by name."""

import dataclasses
from collections.abc import Sequence

import rich.box
import rich.console
import rich.markup
import rich.table
import tyro

from jaxclr import errors
from jaxclr.augment import AUGMENTATIONS
from jaxclr.cli.words import first_line, parse
from jaxclr.data import SOURCES
from jaxclr.encoders import ENCODERS
from jaxclr.losses.catalogue import facts, public_losses
from jaxclr.methods import METHODS, Method
from jaxclr.steps.optimizers import OPTIMIZERS


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Options of `jaxclr list`."""

    what: tyro.conf.Positional[str] = "all"
    """methods, losses, encoders, augmentations, optimizers, data or all."""


def list_names(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Show methods, losses, encoders, augmentations, optimizers and data sources: jaxclr list [WHAT]"""
    options = parse(ListOptions, arguments, "list", description="What can be chosen by name.")
    tables = {
        "methods": {name: f"{first_line(kind)} {_needs(kind)}" for name, kind in METHODS.items()},
        "encoders": {name: str(spec) for name, spec in ENCODERS.items()},
        "augmentations": {
            name: f"{len(recipe.views)} views: "
            + ", ".join(sorted({type(view).__name__ for view in recipe.views}))
            for name, recipe in AUGMENTATIONS.items()
        },
        "optimizers": {name: first_line(kind) for name, kind in OPTIMIZERS.items()},
        "data": {name: first_line(source) for name, source in SOURCES.items()},
    }
    if options.what not in ("all", "losses") and options.what not in tables:
        raise errors.unknown("list", options.what, ["all", "losses", *tables])
    for title, rows in tables.items():
        if options.what in ("all", title):
            shown = rich.table.Table(title=title, title_justify="left", show_header=False)
            for row in rows.items():
                shown.add_row(*map(rich.markup.escape, row))
            console.print(shown)
    if options.what in ("all", "losses"):
        console.print(_losses_table())


def _losses_table() -> rich.table.Table:
    """Every loss: what it needs, costs and computes over the global batch."""
    title = "losses (B images of D dimensions, V views)"
    shown = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for column in ("", "arXiv", "cost"):
        shown.add_column(column, no_wrap=True)
    for column in ("needs", "over the global batch"):
        shown.add_column(column)
    for name, loss in public_losses().items():
        needs, cost, global_batch, paper = facts(loss)
        shown.add_row(name, paper, cost, needs, global_batch)
    return shown


def _needs(kind: type[Method]) -> str:
    """What a method asks of the data, in brackets."""
    views = f"{kind.views}{' or more' * kind.more_views} view{'s' * (kind.views > 1 or kind.more_views)}"
    return f"[{views}{', labels' * kind.needs_labels}]"
