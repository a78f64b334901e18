"""`jaxclr evaluate`: how good a run's encoder is."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import rich.console
import tyro

from jaxclr.cli.console import first_line, named, parse, take
from jaxclr.cli.opening import open_run
from jaxclr.data import Data
from jaxclr.errors import SharedError, UserError
from jaxclr.evaluation.by_protocol import protocol_table
from jaxclr.evaluation.closing import closing_table
from jaxclr.evaluation.protocols import PROTOCOLS, Protocol
from jaxclr.processes.runtime import Distributed


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `jaxclr evaluate`."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""

    baselines: bool = True
    """Also probe raw pixels and the same encoder untrained."""

    trust: bool = False
    """Run the code that lies in the folder although another user put it there."""

    distributed: Distributed = Distributed()
    """Several processes: each is started by the same command."""


@dataclasses.dataclass(frozen=True)
class ProtocolOptions:
    """Options of `jaxclr evaluate RUN --protocol NAME`."""

    protocol: Annotated[Protocol, tyro.conf.arg(name="")]

    data: Any
    """What to evaluate on; the run's own data unless set otherwise."""

    seeds: int = 1
    """How often to repeat what is drawn: labels, splits, initial values, views."""

    trust: bool = False
    """Run the code that lies in the folder although another user put it there."""


def evaluate_run(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Probe the newest checkpoint of a run: jaxclr evaluate RUN [--protocol NAME] [--seeds N] [--field value ...]"""
    arguments = list(arguments)
    name = take(arguments, "protocol")
    if name is not None:
        _by_protocol(named("protocol", name, PROTOCOLS)(), name, arguments, console)
        return
    protocols = "; ".join(f"{name}: {first_line(kind)}" for name, kind in PROTOCOLS.items())
    options = parse(
        EvaluateOptions,
        arguments,
        "evaluate",
        description="kNN and linear probes of a run's newest checkpoint; writes evaluation.json. --protocol NAME evaluates it "
        f"otherwise, and its fields are shown by `jaxclr evaluate RUN --protocol NAME --help`. {protocols}",
    )
    run = open_run(options.run, console, trust=options.trust)
    console.print(closing_table(run.evaluate(baselines=options.baselines, console=console)))


def _by_protocol(
    protocol: Protocol, name: str, arguments: list[str], console: rich.console.Console
) -> None:
    if any(argument.startswith("--distributed.") for argument in arguments):
        # Of each process the same: all of them come here, and can end in order.
        raise SharedError(
            f"A protocol runs in one process: give jaxclr evaluate RUN --protocol {name} without `jaxclr launch` and "
            "without --distributed options. A run of several processes is evaluated so too."
        )
    folders = [a for a in arguments[:1] if not a.startswith("-")]
    if not folders and not {"-h", "--help"} & set(arguments):
        raise UserError(f"Give the folder of a run first: jaxclr evaluate RUN --protocol {name}.")
    run = (
        open_run(pathlib.Path(folders[0]), console, trust="--trust" in arguments)
        if folders
        else None
    )
    own = run.config.data if run else Data()
    options = parse(
        ProtocolOptions,
        arguments[len(folders) :],
        f"evaluate RUN --protocol {name}",
        default=ProtocolOptions(protocol, own),
        description=f"{first_line(type(protocol))} Writes what it finds into evaluation.json, under its name.",
    )
    assert run is not None  # --help has ended before
    record = run.evaluate(options.protocol, data=options.data, seeds=options.seeds, console=console)
    console.print(protocol_table(record))
