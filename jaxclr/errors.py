"""Errors that a user can fix: one sentence, no traceback."""

import difflib
import importlib
import types
from collections.abc import Iterable


class UserError(ValueError):
    """An invalid request. The message names the value, what was expected, and what to do.

    The command line prints only the message and exits with status 2.
    """


class SharedError(UserError):
    """A UserError that every process raises: the first process prints it, and all exit normally."""


class MissingExtra(UserError):
    """A part of this library needs a module that is not installed; the message names the extra."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for an unknown name; it suggests the closest valid name."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"There is no {kind} named '{name}'.{hint} Valid: {', '.join(valid)}.")


def shown(value: object) -> str:
    """A value in a message: its repr, cut to 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} ..."


def out_of_memory(error: Exception) -> UserError | None:
    """The error for a request that memory does not suffice for; None if that is not the reason."""
    if not isinstance(error, MemoryError) and not str(error).startswith("RESOURCE_EXHAUSTED"):
        return None
    lines = str(error).strip().splitlines()
    return UserError(
        f"Memory does not suffice ({lines[0] if lines else 'MemoryError'}). Use smaller batches, "
        "images or networks, or --micro-batches."
    )


# The extra that installs a module; other modules are in "train".
_EXTRAS = {
    "matplotlib": "report",
    "flatbuffers": "interop",
    "safetensors": "interop",
    "pyarrow": "interop",
    "torch": "torch",
    "wandb": "wandb",
}


def optional(name: str) -> types.ModuleType:
    """A module that an extra installs, or one of this library that imports such a module.

    Raises:
      MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise missing_extra(error) or error from error


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """The error for a missing optional dependency; None if a module of jaxclr itself is missing."""
    module = (error.name or "jaxclr").partition(".")[0]
    if module == "jaxclr":
        return None
    extra = _EXTRAS.get(module, "train")
    return MissingExtra(
        f"This part of jaxclr needs {module}, which is not installed: "
        f"pip install 'jaxclr[{extra}]'."
    )
