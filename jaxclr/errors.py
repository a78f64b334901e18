"""Errors that a user can fix: one sentence, no traceback."""

import difflib
import importlib
import types
from collections.abc import Iterable

from jaxclr.text import displayable


class UserError(ValueError):
    """An invalid request. The message names the value, what was expected, and what to do.

    The command line prints only the message and exits with status 2.
    """


class SharedError(UserError):
    """A UserError that every process raises: the first process prints it, and all exit normally."""


class MissingExtra(UserError):
    """A part of this library needs a module that is not installed; the message names the extra."""


def reason(error: BaseException) -> str:
    """The first line of an error's message for a sentence, without the full stop.

    Of an OSError it is the system's reason, without the path.
    """
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    return cut(displayable(line), 200).rstrip(".: ")


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for an unknown name; it suggests the closest valid names, and lists them if few."""
    valid = sorted(valid)
    few = len(valid) <= 20
    near = difflib.get_close_matches(cut(name), valid, n=3, cutoff=0.5 if few else 0.0)
    hint = f" Did you mean {either(map(repr, near))}?" if near else ""
    listed = f"Valid: {', '.join(valid)}." if few else "`jaxclr list` lists all."
    return UserError(f"There is no {kind} named '{cut(name)}'.{hint} {listed}")


def either(choices: Iterable[str]) -> str:
    """Choices in a sentence: "a", "a or b", "a, b or c"."""
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: object) -> str:
    """A value in a message: its repr, cut to 100 characters."""
    return cut(repr(value))


def cut(text: str, most: int = 100) -> str:
    """Text for a message, cut to a number of characters."""
    return text if len(text) <= most else f"{text[:most]} ..."


def of_system(error: Exception) -> UserError | None:
    """The error for what devices' memory or the file system refuses; None for all others."""
    lines = str(error).strip().splitlines() or [""]
    if lines[0].startswith("RESOURCE_EXHAUSTED"):
        return UserError(
            f"Memory does not suffice ({cut(lines[0], 300)}). Use smaller batches, images or "
            "networks, or --micro-batches."
        )
    if isinstance(error, OSError) and error.strerror:
        path = "" if error.filename is None else f"{cut(str(error.filename), 300)}: "
        return UserError(f"{path}{error.strerror}.")
    return None


# The extra that installs a module; other modules are in "train".
_EXTRAS = {
    "matplotlib": "report",
    "datasets": "hf",
    "huggingface_hub": "hf",
    "gcsfs": "gcs",
    "s3fs": "s3",
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
