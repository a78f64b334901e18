"""Experiment files: Python that a person can read before running it."""

import contextlib
import importlib.util
import inspect
import pathlib
import sys
from collections.abc import Iterator

from jaxclr import errors
from jaxclr.errors import UserError
from jaxclr.methods import METHODS
from jaxclr.runs.config import Config


def load_experiment(path: pathlib.Path, *, method: str | None = None) -> Config:
    """The configuration that an experiment file's `config()` returns.

    Args:
      path: a Python file that defines `config(method=...) -> Config`; it may import files beside it.
      method: name of another method than the file's own.

    Raises:
      UserError: there is no such file, it defines no config, or there is no such method.
    """
    if not path.is_file():
        raise UserError(f"There is no experiment {path}; give a Python file that defines config().")
    if method is not None and method not in METHODS:
        raise errors.unknown("method", method, METHODS)
    with _importing_from(path.parent.resolve()):
        name = f"experiment_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path} is no Python file; an experiment ends in .py.")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not callable(getattr(module, "config", None)):
            raise UserError(f"{path} defines no config(method=...) that returns a Config.")
        if method is not None and not inspect.signature(module.config).parameters:
            raise UserError(f"config() of {path} takes no method: leave --method out, or take another experiment.")
        config = module.config() if method is None else module.config(method)
    sys.modules[name] = module  # whose classes are looked up by name, a method's for instance
    if not isinstance(config, Config):
        raise UserError(f"config() of {path} returned {type(config).__name__}, not a Config.")
    return config


@contextlib.contextmanager
def _importing_from(folder: pathlib.Path) -> Iterator[None]:
    """Lets a file import those beside it, and forgets them: another folder may have files of the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            source = getattr(sys.modules[name], "__file__", None)
            if source and pathlib.Path(source).parent == folder:
                del sys.modules[name]
