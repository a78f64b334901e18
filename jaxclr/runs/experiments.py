"""Experiment files: Python files with a function `config` that returns a configuration."""

import importlib.util
import inspect
import pathlib
import sys
from typing import NamedTuple

from jaxclr import errors
from jaxclr.errors import UserError
from jaxclr.methods import METHODS
from jaxclr.runs.config import Config
from jaxclr.runs.parts import importing_from


class Experiment(NamedTuple):
    """The file of an experiment, and the method passed to its `config`; None for its default."""

    file: pathlib.Path
    method: str | None


def load_experiment(path: pathlib.Path, *, method: str | None = None) -> Config:
    """The configuration that an experiment file's `config()` returns.

    Args:
      path: a Python file that defines `config(method=...) -> Config`; it may import files of its
        folder.
      method: name of another method than the file's default.

    Raises:
      UserError: the file does not exist, imports what is not there or defines no config, or the
        method does not exist.
    """
    if not path.is_file():
        raise UserError(f"There is no experiment {path}; give a Python file that defines config().")
    if method is not None and method not in METHODS:
        raise errors.unknown("method", method, METHODS)
    with importing_from(path.parent):
        name = f"experiment_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path} is not a Python file; an experiment ends in .py.")
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except ModuleNotFoundError as error:
            raise UserError(f"{path} cannot be run: {error}. Install what it imports.") from error
        if not callable(getattr(module, "config", None)):
            raise UserError(f"{path} does not define config(method=...) that returns a Config.")
        if method is not None and not inspect.signature(module.config).parameters:
            raise UserError(
                f"config() of {path} takes no method: leave --method out, or use another "
                "experiment."
            )
        config = module.config() if method is None else module.config(method)
    if not isinstance(config, Config):
        raise UserError(f"config() of {path} returned {type(config).__name__}, not a Config.")
    return config
