"""What the commands read, and how they speak."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import tyro

from jaxclr import errors
from jaxclr.errors import UserError
from jaxclr.processes.signals import Stopped

STATUSES = (
    f"Exit status: 0 when done; 2 for what you can mend, a full disk included; {Stopped.STATUS} when SIGTERM or SIGINT (Ctrl-C) "
    "stopped training after a step, with a checkpoint; 130 at a second Ctrl-C."
)


def say(console: rich.console.Console, text: str) -> None:
    """Prints plain text whose lines a terminal wraps, so that paths and commands can be copied."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def complain(text: str) -> None:
    say(rich.console.Console(stderr=True), text)


def parse(
    kind: type, arguments: Sequence[str], command: str, *, description: str, default: Any = None
) -> Any:
    extra = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        prog=f"jaxclr {command}",
        args=list(arguments),
        description=description,
        config=(tyro.conf.AvoidSubcommands,),
        **extra,
    )


def take(arguments: list[str], part: str) -> str | None:
    """Removes `--part NAME` or `--part=NAME` from the arguments; the last one counts."""
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
    if name not in choices:
        raise errors.unknown(kind, name, choices)
    return choices[name]


def count(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--{name} must be a whole number of at least 1, got {text!r}.")
    return int(text)


def first_line(thing: Any) -> str:
    return inspect.getdoc(thing).splitlines()[0]
