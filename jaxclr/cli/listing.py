"""`jaxclr list`."""

import ast
import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated

import rich.box
import rich.console
import rich.markup
import rich.table
import tyro

from jaxclr import errors
from jaxclr.cli import definitions
from jaxclr.cli.console import parse


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Options of `jaxclr list`."""

    kind: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[KIND]")]] = "all"
    """methods, losses, encoders, augmentations, optimizers, protocols, data or all."""


def list_names(arguments: Sequence[str], console: rich.console.Console) -> None:
    """List methods, losses, encoders, ... by name: jaxclr list [KIND]"""
    options = parse(ListOptions, arguments, "list", description="List names of one kind, or all.")
    if options.kind != "all" and options.kind not in LISTS:
        raise errors.unknown("list", options.kind, ["all", *LISTS])
    for title, rows in LISTS.items():
        if options.kind in ("all", title):
            console.print(_losses_table() if title == "losses" else _plain_table(title, rows()))


def _plain_table(title: str, rows: dict[str, str]) -> rich.table.Table:
    shown = rich.table.Table(title=title, title_justify="left", show_header=False)
    for row in rows.items():
        shown.add_row(*map(rich.markup.escape, row))
    return shown


def _methods() -> dict[str, str]:
    return {
        name: f"{_summary('methods', kind)} {_needs(kind)}"
        for name, kind in definitions.table("methods/__init__.py", "METHODS").items()
    }


def _encoders() -> dict[str, str]:
    return {
        name: ast.unparse(spec)
        for name, spec in definitions.table("encoders/__init__.py", "ENCODERS").items()
    }


def _augmentations() -> dict[str, str]:
    from jaxclr.augment import AUGMENTATIONS

    kinds = lambda views: ", ".join(sorted({type(view).__name__ for view in views}))
    return {
        name: f"{len(each.views)} views: {kinds(each.views)}"
        for name, each in AUGMENTATIONS.items()
    }


def _optimizers() -> dict[str, str]:
    found = definitions.table("steps/optimizers.py", "OPTIMIZERS")
    return {name: _summary("steps", kind) for name, kind in found.items()}


def _protocols() -> dict[str, str]:
    found = definitions.table("evaluation/protocols/__init__.py", "PROTOCOLS")
    return {name: _summary("evaluation/protocols", kind) for name, kind in found.items()}


def _data() -> dict[str, str]:
    """A source is NamedSource(module, argument), and its module defines `load`."""
    rows = {}
    for name, source in definitions.table("data/source_options.py", "SOURCES").items():
        assert isinstance(source, ast.Call)
        module, *argument = map(ast.literal_eval, source.args)
        load = definitions.definitions(f"data/{module}.py")["load"]
        rows[":".join([name, *argument])] = definitions.summary(load)
    return rows


def _losses_table() -> rich.table.Table:
    """The needs, cost and global-batch computations of every loss."""
    title = "losses (B images of D dimensions, V views)"
    shown = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for column in ("", "arXiv", "cost"):
        shown.add_column(column, no_wrap=True)
    for column in ("needs", "over the global batch"):
        shown.add_column(column)
    for name, docstring in definitions.public_losses().items():
        needs, cost, global_batch, paper = definitions.loss_facts(docstring)
        shown.add_row(name, paper, cost, needs, global_batch)
    return shown


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": _methods,
    "encoders": _encoders,
    "augmentations": _augmentations,
    "optimizers": _optimizers,
    "protocols": _protocols,
    "data": _data,
    "losses": dict,
}


def _summary(folder: str, kind: ast.expr) -> str:
    return definitions.summary(definitions.definitions(folder)[ast.unparse(kind)])


def _needs(kind: ast.expr) -> str:
    """The views and labels that a method needs, in brackets."""
    method = definitions.definitions("methods")[ast.unparse(kind)]
    assert isinstance(method, ast.ClassDef)
    views, more, labels = (
        definitions.attribute("methods", method, name)
        for name in ("views", "more_views", "needs_labels")
    )
    needs = f"{views}{' or more' * bool(more)} view{'s' * (views > 1 or bool(more))}"
    return f"[{needs}{', labels' * bool(labels)}]"
