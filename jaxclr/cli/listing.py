"""`jaxclr list`: names, and what the source says of each."""

import ast
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import rich.console
import tyro

from jaxclr import errors
from jaxclr.cli import definitions
from jaxclr.cli.console import parse, print_text
from jaxclr.cli.layout import columns, margin, paragraphs, print_lines
from jaxclr.text import wrapped

Entry = dict[str, Any]  # JSON; values that say nothing are left out
COST = " operations; B images, D dimensions, V views"
ANYWHERE = "any number of CPUs, GPUs or TPUs, with equal results"


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """Options of `jaxclr list`."""

    kind: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[KIND]")]] = "all"
    """methods, losses, encoders, augmentations, optimizers, protocols, data or all."""

    name: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="[NAME]")]] = None
    """One of them, to see all of it."""

    json: bool = False
    """Print all of it as JSON: by kind with all, otherwise by name."""


def list_names(arguments: Sequence[str], console: rich.console.Console) -> None:
    """List methods, losses, encoders, ..., or show one: jaxclr list [KIND [NAME]] [--json]"""
    options = parse(
        ListOptions, arguments, "list", description="List names of one kind or all, or show one."
    )
    if options.kind == "all":
        if options.name:
            raise errors.UserError(f"Give the kind of {options.name!r}: {', '.join(LISTS)}.")
        everything = {kind: one.entries() for kind, one in LISTS.items()}
        if options.json:
            _print_json(console, everything)
        else:
            print_lines(console, _overview(everything, margin(console)))
        return
    if options.kind not in LISTS:
        raise errors.unknown("list", options.kind, ["all", *LISTS])
    one, entries = LISTS[options.kind], LISTS[options.kind].entries()
    if options.name:
        if options.name not in entries:
            raise errors.unknown(one.singular, options.name, entries)
        entries = {options.name: entries[options.name]}
    if options.json:
        _print_json(console, entries)
    elif options.name:
        print_lines(console, detail(options.name, one, entries[options.name], margin(console)))
    else:
        print_lines(console, _table(options.kind, entries, margin(console)))


def _print_json(console: rich.console.Console, tree: Any) -> None:
    print_text(console, json.dumps(tree, indent=2, ensure_ascii=False), wrap=False)


def _overview(everything: dict[str, dict[str, Entry]], width: int) -> list[str]:
    lines = []
    for kind, entries in everything.items():
        names = paragraphs([", ".join(entries)], width, indent="  ")
        lines += [f"{kind} ({len(entries)}):", *names]
        lines.append("")
    return [*lines, *_more("KIND", width)]


def _table(kind: str, entries: dict[str, Entry], width: int) -> list[str]:
    """A line or two for each: its summary, and in brackets what it needs or is made of."""
    rows = []
    for name, entry in entries.items():
        note = entry.get("needs") or entry.get("spec")
        rows.append((name, f"{entry['summary']} [{note}]" if note else entry["summary"]))
    return [f"{kind} ({len(entries)}):", *columns(rows, width), "", *_more(kind, width)]


def _more(kind: str, width: int) -> list[str]:
    each = f"`jaxclr list {kind}` describes each, `" if kind == "KIND" else "`"
    text = f"{each}jaxclr list {kind} NAME` shows one of them; --json is for programs."
    return wrapped(text, width)


def detail(name: str, one: "List", entry: Entry, width: int) -> list[str]:
    """All that an entry says."""
    lines = [f"{name}, {one.article} {one.singular}:", *paragraphs([entry["summary"]], width)]
    for equation in entry.get("equations", ()):
        lines += ["", "Equation (LaTeX):", *paragraphs([equation], width, indent="  ")]
    for text in entry.get("text", ()):
        lines += ["", *(text.split("\n") if text.startswith("|") else wrapped(text, width))]
    rows = []
    for key, value in entry.items():
        if key not in ("summary", "text", "equations", "example", "arguments"):
            label, more = key.replace("_", " ").capitalize(), COST if key == "cost" else ""
            rows.append((label, ", ".join(value) if isinstance(value, list) else value + more))
    lines += ["", "Facts:", *columns(rows, width)]
    if arguments := entry.get("arguments"):
        shown = [
            (
                key if each["default"] is None else f"{key} = {each['default']}",
                each["meaning"] or each["type"],
            )
            for key, each in arguments.items()
        ]
        lines += ["", f"{one.settings}:", *columns(shown, width)]
    if example := entry.get("example"):
        code = (line for whole in example for line in wrapped(whole, width - 2))
        lines += ["", "Example:", *(f"  {line}" for line in code)]
    return lines


def _entry(**fields: Any) -> Entry:
    """An entry without what says nothing."""
    return {key: value for key, value in fields.items() if value}


def _arguments(found: dict[str, definitions.Argument]) -> dict[str, dict[str, str | None]]:
    return {name: argument._asdict() for name, argument in found.items()}


def _arxiv(text: str) -> str:
    found = re.search(r"arXiv:(\d{4}\.\d{4,5})", text)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


def _of_class(folder: str, kind: ast.ClassDef, **facts: Any) -> Entry:
    """The entry of a class whose fields are its settings."""
    docstring = ast.get_docstring(kind) or ""
    text = definitions.documented(docstring)
    facts.setdefault("arguments", definitions.fields(folder, kind))
    return _entry(
        summary=text.summary,
        text=text.text,
        example=text.example,
        **facts | {"arguments": _arguments(facts["arguments"])},
        paper=_arxiv(docstring),
        reference=text.references,
    )


def _class(folder: str, name: ast.expr) -> ast.ClassDef:
    kind = definitions.definitions(folder)[ast.unparse(name)]
    assert isinstance(kind, ast.ClassDef)
    return kind


def _methods() -> dict[str, Entry]:
    losses = definitions.loss_names()
    entries = {}
    for name, expression in definitions.table("methods/__init__.py", "METHODS").items():
        kind = _class("methods", expression)
        used = definitions.attributes_of("losses", "methods", kind)
        entries[name] = _of_class(
            "methods",
            kind,
            use=f"jaxclr train EXPERIMENT.py --method {name}",
            needs=_needs(kind),
            losses=[loss for loss in used if loss in losses],
            devices=ANYWHERE,
            python=f"jaxclr.methods.{kind.name}",
        )
    return entries


def _needs(method: ast.ClassDef) -> str:
    """The views and labels that a method needs."""
    views, more, labels = (
        definitions.attribute("methods", method, name)
        for name in ("views", "more_views", "needs_labels")
    )
    needs = f"{views}{' or more' * bool(more)} view{'s' * (views > 1 or bool(more))}"
    return f"{needs}{', labels' * bool(labels)}"


def _losses() -> dict[str, Entry]:
    users: dict[str, list[str]] = {}
    for name, method in _methods().items():
        for loss in method.get("losses", ()):
            users.setdefault(loss, []).append(name)
    entries = {}
    for name, function in sorted(definitions.loss_definitions().items()):
        docstring = ast.get_docstring(function) or ""
        text, facts = definitions.documented(docstring), definitions.loss_facts(docstring)
        arguments = definitions.parameters(function)
        devices = f"{ANYWHERE}: axis_name" if "axis_name" in arguments else ANYWHERE
        if "implementation" in arguments:
            devices += "; implementation selects tiles, a ring or the dense matrix"
        entries[name] = _entry(
            summary=text.summary,
            text=text.text,
            equations=text.equations,
            example=text.example,
            use=f"jaxclr.losses.{name}({', '.join(_required(arguments))}, ...)",
            needs=facts.needs,
            cost=facts.cost,
            global_batch=facts.global_batch,
            devices=devices,
            methods=users.get(name),
            paper=_arxiv(docstring),
            reference=text.references,
            arguments=_arguments(arguments),
        )
    return entries


def _required(arguments: dict[str, definitions.Argument]) -> list[str]:
    return [name for name, argument in arguments.items() if argument.default is None]


def _encoders() -> dict[str, Entry]:
    """An encoder is a call of its class, with some of its fields."""
    entries = {}
    for name, call in definitions.table("encoders/__init__.py", "ENCODERS").items():
        assert isinstance(call, ast.Call)
        kind = _class("encoders", call.func)
        fields = definitions.fields("encoders", kind)
        given = dict(zip(fields, call.args, strict=False))
        given |= {word.arg: word.value for word in call.keywords if word.arg}
        fields |= {key: fields[key]._replace(default=ast.unparse(v)) for key, v in given.items()}
        entries[name] = _of_class(
            "encoders",
            kind,
            use=f"jaxclr train EXPERIMENT.py --encoder {name}",
            spec=ast.unparse(call),
            python=f"jaxclr.encoders.{kind.name}",
            arguments=fields,
        )
    return entries


def _augmentations() -> dict[str, Entry]:
    from jaxclr.augment import AUGMENTATIONS

    entries = {}
    for name, each in AUGMENTATIONS.items():
        kinds = ", ".join(sorted({type(view).__name__ for view in each.views}))
        entries[name] = _entry(
            summary=f"{len(each.views)} views: {kinds}",
            use=f"jaxclr train EXPERIMENT.py --augmentation {name}",
            views=[repr(view) for view in each.views],
        )
    return entries


def _named_classes(file: str, table: str, folder: str, use: str) -> dict[str, Entry]:
    found = definitions.table(file, table)
    return {
        name: _of_class(folder, _class(folder, expression), use=use.format(name))
        for name, expression in found.items()
    }


def _optimizers() -> dict[str, Entry]:
    use = "jaxclr train EXPERIMENT.py --optimizer {}"
    return _named_classes("steps/optimizers.py", "OPTIMIZERS", "steps", use)


def _protocols() -> dict[str, Entry]:
    file, use = "evaluation/protocols/__init__.py", "jaxclr evaluate RUN --protocol {}"
    return _named_classes(file, "PROTOCOLS", "evaluation/protocols", use)


def _data() -> dict[str, Entry]:
    """A source is NamedSource(module, argument), and its module defines `load`."""
    entries = {}
    for name, source in definitions.table("data/source_options.py", "SOURCES").items():
        assert isinstance(source, ast.Call)
        module, *argument = map(ast.literal_eval, source.args)
        load = definitions.definitions(f"data/{module}.py")["load"]
        text = definitions.documented(ast.get_docstring(load) or "")
        spec = ":".join([name, *argument])
        entries[name] = _entry(
            summary=text.summary,
            text=text.text,
            use=f"jaxclr train EXPERIMENT.py --data.source {spec}",
            spec=spec,
            options="jaxclr train --help-data",
        )
    return entries


class List(NamedTuple):
    """A list of entries.

    Attributes:
      entries: a function that returns them by name.
      singular: the word for one of them.
      settings: the word for their arguments.
      article: that of the word for one of them.
    """

    entries: Callable[[], dict[str, Entry]]
    singular: str
    settings: str = "Options and their defaults"
    article: str = "a"


LISTS = {
    "methods": List(_methods, "method", "Options (--method.NAME) and their defaults"),
    "losses": List(_losses, "loss", "Arguments and their defaults"),
    "encoders": List(_encoders, "encoder", "Options (--encoder.NAME)", "an"),
    "augmentations": List(_augmentations, "augmentation", article="an"),
    "optimizers": List(_optimizers, "optimizer", "Options (--optimizer.NAME)", "an"),
    "protocols": List(_protocols, "protocol"),
    "data": List(_data, "data source"),
}
