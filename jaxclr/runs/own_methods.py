"""Methods that a user's experiment defines: their source travels with the run, so that it can be read back."""

import importlib.util
import pathlib
import sys

from jaxclr.errors import UserError
from jaxclr.methods import METHODS, Imported, Method


def method_name(method: Method) -> str:
    """The name in METHODS, or that of the class if it is a user's own."""
    kind = type(method)
    return next((name for name, known in METHODS.items() if known is kind), kind.__name__)


def own_source(method: Method) -> pathlib.Path | None:
    """The file that defines a method which is none of ours; None for those."""
    kind = type(method)
    if kind in METHODS.values() or kind is Imported:
        return None
    return pathlib.Path(kind.objective.__code__.co_filename)


def define(source: pathlib.Path) -> None:
    """Defines the methods in a file, by running it.

    Raises:
      UserError: it cannot be run; what it imports must be installed.
    """
    name = f"jaxclr_own_{abs(hash(source.resolve()))}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, source)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(
            f"{source}, which defines the method of this run, cannot be run here: {error}. "
            "Install what it imports, or put files beside it into the same file."
        ) from error
