"""What classes and functions say of themselves, read from their source: nothing is imported or run."""

import ast
import functools
import pathlib
from typing import Any

Definition = ast.ClassDef | ast.FunctionDef
_PACKAGE = pathlib.Path(__file__).parents[1]


def table(file: str, name: str) -> dict[str, ast.expr]:
    """The dict literal that a module assigns to a name: its keys and the expressions of its values.

    Args:
      file: the module, below the package.
      name: of the dict.
    """
    for node in _parsed(_PACKAGE / file).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value
            assert isinstance(value, ast.Dict)
            return {
                ast.literal_eval(key): entry
                for key, entry in zip(value.keys, value.values, strict=True)
            }
    raise KeyError(f"{file} has no dict {name}")


@functools.cache
def definitions(folder: str) -> dict[str, Definition]:
    """The top-level classes and functions of a module, or of a folder's modules, by name."""
    found: dict[str, Definition] = {}
    place = _PACKAGE / folder
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        found |= {node.name: node for node in _parsed(path).body if isinstance(node, Definition)}
    return found


def summary(definition: Definition) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(definition) or "").splitlines()[0]


def attribute(folder: str, kind: ast.ClassDef, name: str) -> Any:
    """The literal that a class, or the nearest base in the folder, assigns to a name; None without one."""
    for node in kind.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == name
        ):
            return None if node.value is None else ast.literal_eval(node.value)
    for base in kind.bases:
        above = definitions(folder).get(ast.unparse(base).rpartition(".")[2])
        if isinstance(above, ast.ClassDef):
            found = attribute(folder, above, name)
            if found is not None:
                return found
    return None


@functools.cache
def _parsed(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_bytes())
