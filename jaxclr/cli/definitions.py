"""Docstrings and constants of classes and functions, parsed without importing them."""

import ast
import functools
import pathlib
from typing import Any

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


@functools.cache
def _parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_bytes())
