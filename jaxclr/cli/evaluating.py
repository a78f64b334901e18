"""`jaxclr evaluate`."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import rich.console
import rich.table
import tyro

from jaxclr.cli.console import (
    asked_help,
    first_line,
    named,
    parse,
    pop_option,
    print_table,
    print_text,
)
from jaxclr.cli.opening import open_run
from jaxclr.data import Data
from jaxclr.errors import UserError
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

    data: Any = Data()
    """Data to evaluate on, by default those of the run."""

    baselines: bool = True
    """Also evaluate raw pixels and the untrained encoder, for comparison."""

    json: bool = False
    """Print the record as JSON, with the accuracy of each class and a confusion table."""

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

    json: bool = False
    """Print the record as JSON."""

    trust: bool = False
    """Run the code stored in the folder, even if another user created it."""

    distributed: Distributed = Distributed()
    """Several processes, each started by the same command."""


def evaluate_run(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Evaluate a run's newest checkpoint: jaxclr evaluate RUN [--protocol NAME]"""
    arguments = list(arguments)
    name = pop_option(arguments, "protocol")
    if name is not None:
        _by_protocol(named("protocol", name, PROTOCOLS)(), name, arguments, console)
        return
    protocols = "\n".join(f"- {name}: {first_line(kind)}" for name, kind in PROTOCOLS.items())
    before = {"--protocol NAME": f"Another protocol: {', '.join(PROTOCOLS)}."}
    description = (
        "Evaluate a run's newest checkpoint by kNN and linear probes, and write evaluation.json. "
        "--data.source evaluates on other data, without those of the run. The options of a "
        "protocol: `jaxclr evaluate --protocol NAME --help`."
        f"\n\nProtocols:\n{protocols}"
    )
    options = parse(EvaluateOptions, arguments, "evaluate", description=description, before=before)
    notes = _beside(console, as_json=options.json)
    run = open_run(options.run, notes, trust=options.trust)
    # Again, with the run's own data as defaults.
    options = parse(
        EvaluateOptions,
        arguments,
        "evaluate",
        description=description,
        default=EvaluateOptions(tyro.MISSING, run.config.data),
    )
    record = run.evaluate(data=options.data, baselines=options.baselines, console=notes)
    _show(record, closing_table, console, as_json=options.json)


def _by_protocol(
    protocol: Protocol, name: str, arguments: list[str], console: rich.console.Console
) -> None:
    folders = [a for a in arguments[:1] if not a.startswith("-")]
    if not folders and asked_help(arguments) is None:
        raise UserError(f"Give the folder of a run first: jaxclr evaluate RUN --protocol {name}.")
    notes = _beside(console, as_json="--json" in arguments)
    run = open_run(expanded(folders[0]), notes, trust="--trust" in arguments) if folders else None
    own = run.config.data if run else Data()
    options = parse(
        ProtocolOptions,
        arguments[len(folders) :],
        f"evaluate RUN --protocol {name}",
        default=ProtocolOptions(protocol, own),
        description=f"{first_line(type(protocol))} The results are added to evaluation.json.",
        before={"RUN": "Folder of the run."},
    )
    assert run is not None  # with --help, parse exits
    record = run.evaluate(options.protocol, data=options.data, seeds=options.seeds, console=notes)
    _show(record, protocol_table, console, as_json=options.json)


def _beside(console: rich.console.Console, *, as_json: bool) -> rich.console.Console:
    """The console of notes: standard error beside JSON, which they must not mix with."""
    return rich.console.Console(stderr=True) if as_json else console


def _show(
    record: dict[str, Any],
    table: Callable[[dict[str, Any]], rich.table.Table],
    console: rich.console.Console,
    *,
    as_json: bool,
) -> None:
    if as_json:
        print_text(console, json.dumps(record, indent=2), wrap=False)
    else:
        print_table(console, table(record))
