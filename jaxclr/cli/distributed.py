"""The --distributed options, which are parsed before all others."""

import dataclasses
from collections.abc import Sequence

import tyro

from jaxclr.processes.runtime import Distributed


def parse_distributed(arguments: Sequence[str]) -> Distributed:
    """Parses the --distributed options among the arguments of a command."""
    options, _ = tyro.cli(
        _Options, args=list(arguments[1:]), add_help=False, return_unknown_args=True
    )
    return options.distributed


@dataclasses.dataclass(frozen=True)
class _Options:
    distributed: Distributed = Distributed()
