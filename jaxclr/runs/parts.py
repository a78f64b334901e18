"""Parts of a configuration as JSON: their names, their sources, and how they are rebuilt.

A part is an encoder, a view, an optimizer, data or a method. In JSON it is

- ``{"type": "ResNet", ...fields}`` for a class of this library;
- ``{"type": "package.module:Class", ...fields}`` or ``{"function": "package.module:name"}`` for
  installed code;
- ``{"type": "parts/file.py:Class", ...fields}`` or ``{"function": "parts/file.py:name"}`` for code
  of a file, which is copied into the run's folder with the files of its own folder that it imports;
- ``{"session": "..."}`` for objects that only a Python session has: a lambda, a class of a notebook
  cell, arrays.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import pathlib
import sys
import sysconfig
import types
import typing
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxclr import trees
from jaxclr.data import Arrays
from jaxclr.errors import UserError

FOLDER = "parts"
_ROOT = "__jaxclr_parts__"  # attribute of modules loaded from copies: the folder of the copies
_LINEN_FIELDS = {"parent", "name"}  # fields that Flax adds to every Linen module


class SessionOnly(UserError):
    """A part is needed that only a Python session has."""


def describe(part: Any, hint: Any = None) -> Any:
    """A part or the value of a field as JSON; a dataclass of the class `hint` has no "type"."""
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, tuple | list):
        return [describe(value) for value in part]
    if isinstance(part, dict):
        return {str(key): describe(value) for key, value in part.items()}
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        name = locate(type(part))
        if name is None or isinstance(part, Arrays):
            return _of_session(part)
        hints = _hints(type(part))
        fields = {
            field.name: describe(getattr(part, field.name), _exact(hints.get(field.name)))
            for field in dataclasses.fields(part)
            if field.init and field.name not in _LINEN_FIELDS
        }
        return fields if type(part) is hint else {"type": name, **fields}
    if isinstance(part, types.FunctionType | types.BuiltinFunctionType | type) or hasattr(
        part, "__qualname__"
    ):
        name = locate(part)
        return _of_session(part) if name is None else {"function": name}
    return _of_session(part)


def locate(thing: Any) -> str | None:
    """The name from which `resolve` finds a class or function; None if only this session has it."""
    module = sys.modules.get(getattr(thing, "__module__", None) or "")
    name = getattr(thing, "__qualname__", "<")
    if module is None or "<" in name or _find(module, name) is not thing:
        return None
    if module.__name__.partition(".")[0] == "jaxclr":
        return name if isinstance(thing, type) else f"{module.__name__}:{name}"
    if _is_installed(module):
        return f"{module.__name__}:{name}"
    file = source_of(module)
    if file is None:
        return None
    return f"{FOLDER}/{file.relative_to(_root(module, file)).as_posix()}:{name}"


def source_of(module: types.ModuleType) -> pathlib.Path | None:
    """The file of a module; None for a notebook or an interactive session."""
    file = getattr(module, "__file__", None)
    return pathlib.Path(file).resolve() if file and pathlib.Path(file).is_file() else None


def copies(config: Any, experiment: pathlib.Path | None = None) -> dict[str, bytes]:
    """The sources to copy into a run, by their path below `FOLDER`.

    They are the files of parts, and the files of the same folder that these import.

    Args:
      config: the configuration, or one part.
      experiment: the experiment file, if its `config()` makes parts that JSON cannot hold.

    Raises:
      UserError: two files would have the same path.
    """
    roots = {} if experiment is None else {experiment.resolve(): experiment.resolve().parent}
    for definition in _definitions_in(config):
        if (locate(definition) or "").startswith(f"{FOLDER}/"):
            module = sys.modules[definition.__module__]
            file = source_of(module)
            assert file is not None  # `locate` has found it
            roots[file] = _root(module, file)
    found: dict[str, bytes] = {}
    for file, root in roots.items():
        for path in _closure(file, root):
            name, text = path.relative_to(root).as_posix(), path.read_bytes()
            if found.setdefault(name, text) != text:
                raise UserError(
                    f"Two files that define parts of this run are named {name}; rename one of them."
                )
    return found


def checksums(config: Any) -> dict[str, str]:
    """Checksums of the code of own parts that is not copied.

    It is that of a session (lambdas, classes of a notebook cell), and that of packages installed in
    place (pip install --editable).
    """
    found: dict[str, str] = {}
    for definition in _definitions_in(config):
        name = locate(definition)
        if name is None:
            text = "".join([found.get(definition.__qualname__, ""), _source(definition)])
            found[definition.__qualname__] = f"{zlib.crc32(text.encode()):08x}"
        elif is_own(name) and not name.startswith(f"{FOLDER}/"):
            module = sys.modules[definition.__module__]
            file = source_of(module)
            if file and not any(root in file.parents for root in _installed_roots()):
                root = _root(module, file)
                for path in _closure(file, root):
                    crc = zlib.crc32(path.read_bytes())
                    found[path.relative_to(root).as_posix()] = f"{crc:08x}"
    return found


def _source(definition: Any) -> str:
    """The source of a function, or of the methods of a class, as far as Python knows it."""
    pieces = vars(definition).values() if isinstance(definition, type) else [definition]
    texts = []
    for piece in pieces:
        with contextlib.suppress(OSError, TypeError):
            texts.append(inspect.getsource(piece))
    return "".join(texts)


def _definitions_in(part: Any) -> Iterator[Any]:
    """The classes and functions of a part and of the parts in its fields."""
    if isinstance(part, tuple | list):
        for value in part:
            yield from _definitions_in(value)
    elif isinstance(part, dict):
        yield from _definitions_in(list(part.values()))
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield type(part)
        yield from _definitions_in(
            [getattr(part, f.name) for f in dataclasses.fields(part) if f.name not in _LINEN_FIELDS]
        )
    elif hasattr(part, "__qualname__"):
        yield part


def names_in(tree: Any) -> Iterator[str]:
    """The classes and functions that JSON of parts names."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key in ("type", "function") and isinstance(value, str):
                yield value
            else:
                yield from names_in(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from names_in(value)


def is_own(name: str) -> bool:
    """Whether a name is of a user's own code, outside this library."""
    return ":" in name and not name.startswith("jaxclr.")


def session_parts(tree: Any, path: str = "") -> list[tuple[str, str]]:
    """The parts that only a session has: their paths in the configuration, and descriptions."""
    if isinstance(tree, Mapping):
        if "session" in tree:
            return [(path, tree["session"])]
        return [
            found
            for key, value in tree.items()
            for found in session_parts(value, f"{path}.{key}".strip("."))
        ]
    if isinstance(tree, list):
        return [
            found for i, value in enumerate(tree) for found in session_parts(value, f"{path}.{i}")
        ]
    return []


def resolve(name: str, folder: pathlib.Path | None) -> Any:
    """The class or function of a name that `locate` returned.

    Args:
      name: "package.module:Class" or "parts/file.py:Class".
      folder: folder of the run, with the copies; None for the modules of this session.

    Raises:
      UserError: the name cannot be found, or its file cannot be run.
    """
    where, _, qualified = name.partition(":")
    if where.startswith(f"{FOLDER}/") or where == "method.py":
        if ".." in pathlib.PurePosixPath(where).parts:
            raise UserError(f"{name} is not a file in the folder of a run.")
        if folder is None:
            module = _loaded(where.removeprefix(f"{FOLDER}/"))
        else:
            module = load_copy(
                folder / where, folder / FOLDER if where.startswith(FOLDER) else folder
            )
    else:
        try:
            module = importlib.import_module(where)
        except Exception as error:  # of the import, or of the module's own code
            raise UserError(
                f"{name} cannot be imported ({error}); install what defines it."
            ) from error
    found = _find(module, qualified)
    if where.partition(".")[0] == "jaxclr" and locate(found) not in (name, qualified):
        found = None  # a module that this library imports, such as os
    if found is None:
        raise UserError(f"{where} does not define {qualified}, which is a part of this run.")
    return found


@functools.cache
def load_copy(file: pathlib.Path, root: pathlib.Path) -> types.ModuleType:
    """Runs a copied file once and returns its module; it may import files of its folder.

    Raises:
      UserError: the file is missing or cannot be run, for instance for a missing package.
    """
    if not file.is_file():
        raise UserError(
            f"{file}, which defines a part of this run, is missing. Restore a copy of it."
        )
    name = f"jaxclr_{FOLDER}_{abs(hash(file.resolve()))}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    setattr(module, _ROOT, root.resolve())
    sys.modules[name] = module
    try:
        with importing_from(root), running_copy():
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(
            f"{file}, which defines a part of this run, cannot be run here: {error}. Install what "
            "it imports."
        ) from error
    return module


_running = False


@contextlib.contextmanager
def running_copy() -> Iterator[None]:
    """Marks that a copy is being run, in which `jaxclr.train` is refused."""
    global _running
    before, _running = _running, True
    try:
        yield
    finally:
        _running = before


def check_not_running_copy() -> None:
    """Raises UserError if a copied file is being run, so that reading a run never trains."""
    if _running:
        raise UserError(
            'it trains when it is imported; put that under `if __name__ == "__main__":`'
        )


@contextlib.contextmanager
def importing_from(folder: pathlib.Path) -> Iterator[None]:
    """Lets a file import the files of a folder.

    Afterwards these modules are renamed: another folder may have files of the same names.
    """
    folder = folder.resolve()
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            source = getattr(sys.modules[name], "__file__", None)
            below = source and folder in pathlib.Path(source).resolve().parents
            if below and not _is_installed(sys.modules[name]):
                # Classes need their module in sys.modules, under a name that is never imported.
                kept = f"jaxclr_{FOLDER}_{abs(hash(source))}_{name}"
                module = sys.modules[kept] = sys.modules.pop(name)
                for value in vars(module).values():
                    if getattr(value, "__module__", None) == name:
                        with contextlib.suppress(AttributeError, TypeError):
                            value.__module__ = kept


def _of_session(part: Any) -> dict[str, Any]:
    """The JSON of a part that only this session has."""
    if isinstance(part, Arrays):
        text = f"Arrays of {trees.describe(part.train)}, digest {part.digest}"
        return {"session": text, "mean": describe(part.mean), "std": describe(part.std)}
    name = getattr(part, "__qualname__", None)
    return {"session": name if name else f"an instance of {type(part).__qualname__}"}


def _loaded(path: str) -> types.ModuleType:
    """The module of this session whose file has this path below its root."""
    for module in list(sys.modules.values()):
        file = source_of(module) if isinstance(module, types.ModuleType) else None
        if (
            file is not None
            and file.name == pathlib.PurePosixPath(path).name
            and not _is_installed(module)
            and file.relative_to(_root(module, file)).as_posix() == path
        ):
            return module
    raise UserError(f"{path} is in the folder of a run; this session has not loaded it.")


def _find(module: types.ModuleType, qualified: str) -> Any | None:
    """The object of a qualified name in a module; None if it does not exist."""
    found: Any = module
    for word in qualified.split("."):
        found = getattr(found, word, None)
    return found


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except Exception:  # annotations of a user's class may have undefined names
        return {}


def untagged(tree: Any) -> Any:
    """The JSON of a part without its "type"."""
    return (
        {key: value for key, value in tree.items() if key != "type"}
        if isinstance(tree, dict)
        else tree
    )


def exact_class(kind: type, field: str) -> Any:
    """The class in a field's annotation, the `hint` of `describe`."""
    return _exact(_hints(kind).get(field))


def _exact(hint: Any) -> Any:
    """X of a hint X | None: in JSON its value needs no "type"."""
    choices = [choice for choice in typing.get_args(hint) if choice is not type(None)]
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return choices[0] if is_union and len(choices) == 1 else hint


@functools.cache
def _installed_roots() -> tuple[pathlib.Path, ...]:
    paths = {sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    return tuple(pathlib.Path(path).resolve() for path in paths)


def _is_installed(module: types.ModuleType) -> bool:
    """Whether other programs in this environment can import a module by its name."""
    if (
        module.__name__ == "__main__"
        or hasattr(module, _ROOT)
        or module.__name__.startswith("jaxclr_")
    ):
        return False
    file = source_of(module)
    if file is None:
        return module.__name__ in sys.builtin_module_names
    if any(root in file.parents for root in _installed_roots()):
        return True
    return module.__name__.partition(".")[0] in _distributions()


@functools.cache
def _distributions() -> frozenset[str]:
    """Top-level modules of installed distributions, editable ones included."""
    return frozenset(importlib.metadata.packages_distributions())


def _root(module: types.ModuleType, file: pathlib.Path) -> pathlib.Path:
    """The folder from which a file's module is imported: the parent of its top-level package."""
    if hasattr(module, _ROOT):
        return getattr(module, _ROOT)
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    return root


def _closure(file: pathlib.Path, root: pathlib.Path) -> set[pathlib.Path]:
    """A file and the files below root that it imports, directly or not; packages completely."""
    found: set[pathlib.Path] = set()
    pending = [file]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        top = root / path.relative_to(root).parts[0]
        if top.is_dir():
            pending.extend(top.rglob("*.py"))
        for name in _imported(path):
            pending.extend(p for p in (root / f"{name}.py",) if p.is_file())
            if (root / name / "__init__.py").is_file():
                pending.extend((root / name).rglob("*.py"))
    return found


def _imported(path: pathlib.Path) -> set[str]:
    """Top-level names that a file imports, including those inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
