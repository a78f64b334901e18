"""Parsing of arguments and printing of messages, for all commands."""

import contextlib
import inspect
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import tyro

from jaxclr import errors
from jaxclr.cli.help import asked_help as asked_help
from jaxclr.cli.help import options_of, print_help, rejected
from jaxclr.errors import UserError
from jaxclr.paths import Path, expanded
from jaxclr.processes.signals import Stopped
from jaxclr.text import print_table as print_table
from jaxclr.text import print_text as print_text

STATUSES = (
    "Exit status: 0 on success; 2 for user errors and full disks; "
    f"{Stopped.STATUS} if SIGTERM, SIGINT (Ctrl-C) or SIGHUP stopped a run that is saved; "
    "130 after a second Ctrl-C."
)


def print_error(text: str) -> None:
    """Prints plain text to standard error."""
    print_text(rich.console.Console(stderr=True), text)


def parse(
    kind: type,
    arguments: Sequence[str],
    command: str,
    *,
    description: str,
    default: Any = None,
    before: Mapping[str, str] | None = None,
    first: Sequence[str] = (),
) -> Any:
    """Parses the arguments of a command into a dataclass; prints the help and exits if asked to.

    Args:
      kind: the dataclass.
      arguments: the words after those of `command` and without the options of `before`.
      command: name of the command and its arguments, as the help shows them.
      description, before, first: for the help; see `print_help`.
      default: an instance with the defaults of fields.

    Raises:
      UserError: the arguments do not fit.
    """
    settings: dict[str, Any] = {"prog": f"jaxclr {command}", "description": description}
    settings |= {} if default is None else {"default": default}
    part = asked_help(arguments)
    if part is not None:
        print_help(
            rich.console.Console(),
            options_of(kind, settings | _SETTINGS),
            command=command,
            part=part,
            description=description,
            before=before or {},
            first=first,
        )
        raise SystemExit(0)
    return parse_with(kind, arguments, command, settings)


def parse_with(
    kind: type, arguments: Sequence[str], command: str, settings: Mapping[str, Any]
) -> Any:
    """What `tyro.cli` returns, with a UserError in place of its boxes of types."""
    settings = {**_SETTINGS, **settings}
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            return tyro.cli(kind, args=list(arguments), **settings)
    except _BadPath as error:
        raise UserError(str(error)) from error
    except SystemExit as exit_:
        if not exit_.code:
            raise
        cause: BaseException | None = exit_
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__context__
        if cause is None:
            shared = {key: value for key, value in settings.items() if key in _OF_OPTIONS}
            options = options_of(kind, shared)
            text = rejected(
                said.getvalue(),
                arguments,
                options,
                command=command,
                partial=settings.get("return_unknown_args", False),
            )
            cause = UserError(text)
        raise cause from None


class _BadPath(Exception):
    """The message of a UserError, which is a ValueError: tyro would add a list of types to it."""


_PATHS = tyro.constructors.ConstructorRegistry()


@_PATHS.primitive_rule
def _path(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """Paths have their ~ expanded, also where the shell saw quotes, or are URLs of buckets."""
    if info.type is not pathlib.Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda texts: _expanded(texts[0]),
        is_instance=lambda value: isinstance(value, os.PathLike),
        str_from_instance=lambda value: [str(value)],
    )


_SETTINGS: dict[str, Any] = {"config": (tyro.conf.AvoidSubcommands,), "registry": _PATHS}
_OF_OPTIONS = {"prog", "description", "default", *_SETTINGS}


def _expanded(text: str) -> Path:
    try:
        return expanded(text)
    except UserError as error:
        raise _BadPath(str(error)) from error


def pop_option(arguments: list[str], part: str) -> str | None:
    """Removes all `--part NAME` and `--part=NAME` from the arguments, and returns the last NAME."""
    name, index = None, 0
    while index < len(arguments):
        if arguments[index] == f"--{part}":
            if index + 1 == len(arguments):
                raise UserError(f"--{part} needs a name; see `jaxclr list`.")
            name = arguments[index + 1]
            del arguments[index : index + 2]
        elif arguments[index].startswith(f"--{part}="):
            name = arguments.pop(index).partition("=")[2]
        else:
            index += 1
    return name


def named(kind: str, name: str, choices: Mapping[str, Any]) -> Any:
    """The choice with this name.

    Raises:
      UserError: there is none; the message suggests the closest name.
    """
    if name not in choices:
        raise errors.unknown(kind, name, choices)
    return choices[name]


def count(name: str, text: str) -> int:
    """The positive integer in the text of option --name.

    Raises:
      UserError: the text is not a positive integer.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--{name} must be a whole number of at least 1, got {text!r}.")
    return int(text)


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]
