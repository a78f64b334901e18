"""The --distributed options, which are parsed before all others."""

import dataclasses
from collections.abc import Sequence

from jaxclr.cli.console import parse_with
from jaxclr.processes.runtime import Distributed


def parse_distributed(arguments: Sequence[str]) -> Distributed:
    """Parses the --distributed options among the arguments of a command."""
    settings = {"add_help": False, "return_unknown_args": True}
    options, _ = parse_with(_Options, arguments[1:], arguments[0], settings)
    return options.distributed


@dataclasses.dataclass(frozen=True)
class _Options:
    distributed: Distributed = Distributed()
