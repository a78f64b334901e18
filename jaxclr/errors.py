"""Errors that a user caused and can mend: one sentence, no traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user asked for cannot be done; the message says what was got, wanted, and to do.

    The command line prints the message alone and exits with status 2.
    """


class SharedError(UserError):
    """A UserError that every process raises: the first one prints it, and all of them can end in order."""


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest one that does."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"There is no {kind} named '{name}'.{hint} Valid: {', '.join(valid)}.")


# The extra that brings a module; all others are in "train".
_EXTRAS = {
    "matplotlib": "report",
    "safetensors": "interop",
    "pyarrow": "interop",
    "torch": "torch",
}


def missing_extra(error: ModuleNotFoundError) -> UserError | None:
    """The error for a part whose extra is not installed; None if the module is none that jaxclr asks for."""
    module = (error.name or "jaxclr").partition(".")[0]
    if module == "jaxclr":
        return None
    extra = _EXTRAS.get(module, "train")
    return UserError(
        f"This part of jaxclr needs {module}, which is not installed: pip install 'jaxclr[{extra}]'."
    )
