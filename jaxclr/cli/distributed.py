"""The options of several processes, which every process reads before all others."""

import dataclasses
from collections.abc import Sequence

import tyro

from jaxclr.processes.runtime import Distributed


def parse_distributed(arguments: Sequence[str]) -> Distributed:
    """The options of processes among the arguments of a command."""
    return tyro.cli(_Processes, args=arguments[1:], add_help=False, return_unknown_args=True)[
        0
    ].distributed


@dataclasses.dataclass(frozen=True)
class _Processes:
    distributed: Distributed = Distributed()
