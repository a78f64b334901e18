"""Docstrings and constants of classes and functions, parsed without importing them."""

import ast
import functools
import pathlib
import re
import textwrap
from typing import Any, NamedTuple

Definition = ast.ClassDef | ast.FunctionDef
_PACKAGE = pathlib.Path(__file__).parents[1]


def table(file: str, name: str) -> dict[str, ast.expr]:
    """The dict literal that a module assigns to a name, with unevaluated values.

    Args:
      file: path of the module in the package.
      name: name of the dict.
    """
    for node in _parsed(_PACKAGE / file).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            entries = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): value for key, value in entries if key is not None}
    raise KeyError(f"{file} has no dict {name}")


@functools.cache
def definitions(folder: str) -> dict[str, Definition]:
    """The top-level classes and functions of a module, or of all modules in a folder."""
    found: dict[str, Definition] = {}
    root = _PACKAGE / folder
    for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        found |= {node.name: node for node in _parsed(path).body if isinstance(node, Definition)}
    return found


def summary(definition: Definition) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(definition) or "").splitlines()[0]


def attribute(folder: str, kind: ast.ClassDef, name: str) -> Any:
    """The literal that a class or its nearest base assigns to a name; None without one."""
    for node in kind.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == name
        ):
            return None if node.value is None else ast.literal_eval(node.value)
    for base in kind.bases:
        parent = definitions(folder).get(ast.unparse(base).rpartition(".")[2])
        if isinstance(parent, ast.ClassDef):
            found = attribute(folder, parent, name)
            if found is not None:
                return found
    return None


class Argument(NamedTuple):
    """A parameter of a function, or a field of a dataclass.

    Attributes:
      type: its annotation, as written.
      default: as written; None if a value must be given.
      meaning: what its documentation says.
    """

    type: str
    default: str | None
    meaning: str


def parameters(function: ast.FunctionDef) -> dict[str, Argument]:
    """The parameters of a function, with what the section "Args" of its docstring says."""
    given = function.args
    plain = [*given.posonlyargs, *given.args]
    missing = [None] * (len(plain) - len(given.defaults))
    known = documented(ast.get_docstring(function) or "").arguments
    pairs = zip(
        [*plain, *given.kwonlyargs],
        [*missing, *given.defaults, *given.kw_defaults],
        strict=True,
    )
    return {
        one.arg: Argument(_written(one.annotation) or "", _written(default), known.get(one.arg, ""))
        for one, default in pairs
    }


def fields(folder: str, kind: ast.ClassDef) -> dict[str, Argument]:
    """The fields of a dataclass and of its bases in a folder."""
    found: dict[str, Argument] = {}
    for base in reversed(kind.bases):
        parent = definitions(folder).get(ast.unparse(base).rpartition(".")[2])
        if isinstance(parent, ast.ClassDef):
            found |= fields(folder, parent)
    known = documented(ast.get_docstring(kind) or "").arguments
    for node, after in zip(kind.body, [*kind.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, annotation = node.target.id, ast.unparse(node.annotation)
        if annotation.startswith("ClassVar"):
            continue
        text = known.get(name, found[name].meaning if name in found else "")
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            text = " ".join(after.value.value.split())
        found[name] = Argument(annotation, _written(node.value), text)
    return found


@functools.cache
def attributes_of(module: str, folder: str, kind: ast.ClassDef) -> tuple[str, ...]:
    """The names after `module.` in a class and its bases in a folder, each once."""
    names = [
        node.attr
        for node in ast.walk(kind)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == module
    ]
    for base in kind.bases:
        parent = definitions(folder).get(ast.unparse(base).rpartition(".")[2])
        if isinstance(parent, ast.ClassDef):
            names += attributes_of(module, folder, parent)
    return tuple(dict.fromkeys(names))


class Documentation(NamedTuple):
    """A docstring in parts.

    Attributes:
      summary: its first line.
      text: its other paragraphs, without equations and without the lines of `LossFacts`.
      equations: the LaTeX of its equations.
      example: its lines of a Python session.
      arguments: what its section "Args" says of each.
      references: its section "References".
    """

    summary: str
    text: list[str]
    equations: list[str]
    example: list[str]
    arguments: dict[str, str]
    references: str


def documented(docstring: str) -> Documentation:
    """The parts of a docstring."""
    head, *rest = re.split(r"^([A-Z][a-z]+):\n(?=  )", docstring, flags=re.MULTILINE)
    sections = dict(zip(rest[::2], rest[1::2], strict=True))
    summary, *paragraphs = [part for part in re.split(r"\n\s*\n", head) if part.strip()] or [""]
    text, equations, example = [], [], []
    for one in paragraphs:
        joined = " ".join(one.split())
        if one.startswith(".. math::"):
            equations.append(joined.removeprefix(".. math::").strip())
        elif one.startswith(" ") and equations and not text:
            equations.append(joined)
        elif one.startswith(">>> "):
            example += one.splitlines()
        elif not re.match("(Needs|Cost|Global batch): ", one):
            text.append(one if one.startswith("|") else joined)
    entries = re.split(
        r"^(\w+(?:, \w+)*): ", textwrap.dedent(sections.get("Args", "")), flags=re.MULTILINE
    )
    meanings = {
        name: " ".join(meaning.split())
        for names, meaning in zip(entries[1::2], entries[2::2], strict=True)
        for name in names.split(", ")
    }
    return Documentation(
        " ".join(summary.split()),
        text,
        equations,
        example,
        meanings,
        " ".join(sections.get("References", "").split()),
    )


class LossFacts(NamedTuple):
    """What the docstring of a loss says, "" where it says nothing.

    Attributes:
      needs: the line "Needs": what it takes; "two views" are q and k or z1 and z2 alone.
      cost: the line "Cost": time of value and gradient, by the images B of the global batch, their
        dimensions D, the views V, ... The memory beside the inputs is a tile, or D x D if the cost
        has D squared.
      global_batch: the line "Global batch": what is computed over all devices; "nothing" if rows
        are independent.
      paper: arXiv number of the first paper that it refers to.
    """

    needs: str
    cost: str
    global_batch: str
    paper: str


def loss_facts(docstring: str) -> LossFacts:
    """The facts in the docstring of a loss."""
    lines = (rf"^{label}: (.+)\.$" for label in ("Needs", "Cost", "Global batch"))
    patterns = (*lines, r"arXiv:(\d{4}\.\d{4,5})")
    found = [re.search(pattern, docstring, re.MULTILINE) for pattern in patterns]
    return LossFacts(*(match.group(1) if match else "" for match in found))


def public_losses() -> dict[str, str]:
    """The docstrings of the functions of `jaxclr.losses`, by name."""
    found = loss_definitions()
    return {name: ast.get_docstring(function) or "" for name, function in found.items()}


def loss_definitions() -> dict[str, ast.FunctionDef]:
    """The functions of `jaxclr.losses`, by name."""
    found = {name: definitions("losses").get(name) for name in loss_names()}
    return {name: node for name, node in found.items() if isinstance(node, ast.FunctionDef)}


def loss_names() -> list[str]:
    """The names that `jaxclr.losses` imports from its modules."""
    body = _parsed(_PACKAGE / "losses/__init__.py").body
    imports = (node for node in body if isinstance(node, ast.ImportFrom))
    modules = (node for node in imports if node.module != "jaxclr.losses")
    return [alias.name for node in modules for alias in node.names if alias.asname]


def _written(node: ast.expr | None) -> str | None:
    return None if node is None else ast.unparse(node)


@functools.cache
def _parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_bytes())
