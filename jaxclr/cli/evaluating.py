"""`jaxclr evaluate`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import rich.console
import tyro

from jaxclr.cli.console import first_line, named, parse, pop_option
from jaxclr.cli.opening import open_run
from jaxclr.data import Data
from jaxclr.errors import SharedError, UserError
from jaxclr.evaluation.by_protocol import protocol_table
from jaxclr.evaluation.closing import closing_table
from jaxclr.evaluation.protocols import PROTOCOLS, Protocol
from jaxclr.paths import expanded
from jaxclr.processes.runtime import Distributed


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `jaxclr evaluate`."""

    run: tyro.conf.Positional[Annotated[pathlib.Path, tyro.conf.arg(metavar="RUN")]]
    """Folder of the run."""

    baselines: bool = True
    """Also evaluate raw pixels and the untrained encoder, for comparison."""

    trust: bool = False
    """Run the code stored in the folder, even if another user created it."""

    distributed: Distributed = Distributed()
    """Several processes, each started by the same command."""


@dataclasses.dataclass(frozen=True)
class ProtocolOptions:
    """Options of `jaxclr evaluate RUN --protocol NAME`."""

    protocol: Annotated[Protocol, tyro.conf.arg(name="")]

    data: Any
    """Data to evaluate on, by default those of the run."""

    seeds: int = 1
    """Number of repetitions with other random labels, splits, initial values and views."""

    trust: bool = False
    """Run the code stored in the folder, even if another user created it."""


def evaluate_run(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Evaluate a run's newest checkpoint: jaxclr evaluate RUN [--protocol NAME] [--seeds N]"""
    arguments = list(arguments)
    name = pop_option(arguments, "protocol")
    if name is not None:
        _by_protocol(named("protocol", name, PROTOCOLS)(), name, arguments, console)
        return
    protocols = "\n".join(f"- {name}: {first_line(kind)}" for name, kind in PROTOCOLS.items())
    options = parse(
        EvaluateOptions,
        arguments,
        "evaluate",
        description="Evaluate a run's newest checkpoint by kNN and linear probes, and write "
        "evaluation.json. --protocol NAME uses another protocol, whose options are shown by "
        f"`jaxclr evaluate RUN --protocol NAME --help`.\n\nProtocols:\n{protocols}",
    )
    run = open_run(options.run, console, trust=options.trust)
    console.print(closing_table(run.evaluate(baselines=options.baselines, console=console)))


def _by_protocol(
    protocol: Protocol, name: str, arguments: list[str], console: rich.console.Console
) -> None:
    if any(argument.startswith("--distributed.") for argument in arguments):
        # Every process gets here with the same arguments.
        raise SharedError(
            f"A protocol runs in one process: run jaxclr evaluate RUN --protocol {name} without "
            "`jaxclr launch` and --distributed options, even if the run had several processes."
        )
    folders = [a for a in arguments[:1] if not a.startswith("-")]
    if not folders and not {"-h", "--help"} & set(arguments):
        raise UserError(f"Give the folder of a run first: jaxclr evaluate RUN --protocol {name}.")
    run = open_run(expanded(folders[0]), console, trust="--trust" in arguments) if folders else None
    own = run.config.data if run else Data()
    options = parse(
        ProtocolOptions,
        arguments[len(folders) :],
        f"evaluate RUN --protocol {name}",
        default=ProtocolOptions(protocol, own),
        description=f"{first_line(type(protocol))} The results are added to evaluation.json.",
    )
    assert run is not None  # with --help, parse exits
    record = run.evaluate(options.protocol, data=options.data, seeds=options.seeds, console=console)
    console.print(protocol_table(record))
