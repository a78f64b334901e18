"""Docstrings and constants of classes and functions, parsed without importing them."""

import ast
import functools
import pathlib
import re
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
    """The literal that a class or its nearest base assigns to a name; None if there is none."""
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
    functions = definitions("losses")
    imports = (
        n for n in _parsed(_PACKAGE / "losses/__init__.py").body if isinstance(n, ast.ImportFrom)
    )
    names = [alias.name for node in imports for alias in node.names if alias.asname]
    return {
        name: ast.get_docstring(functions[name]) or ""
        for name in names
        if isinstance(functions.get(name), ast.FunctionDef)
    }


@functools.cache
def _parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_bytes())
