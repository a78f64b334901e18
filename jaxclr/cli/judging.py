"""`jaxclr evaluate`: what a run is worth."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Annotated

import rich.console
import tyro

from jaxclr import training
from jaxclr.cli.words import first_line, named, parse, say, take
from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.evaluation.by_protocol import evaluate, protocol_table
from jaxclr.evaluation.closing import closing_record, closing_table
from jaxclr.evaluation.protocols import PROTOCOLS, Protocol
from jaxclr.evaluation.subject import labelled_splits, on_data
from jaxclr.processes import runtime
from jaxclr.processes.runtime import Distributed
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.config import Config
from jaxclr.runs.folder import RunFolder
from jaxclr.training.session import Session


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Options of `jaxclr evaluate`."""

    run: tyro.conf.Positional[pathlib.Path]
    """Folder of the run."""

    baselines: bool = True
    """Also probe raw pixels and the same encoder untrained."""

    distributed: Distributed = Distributed()
    """Several processes: each is started by the same command."""


@dataclasses.dataclass(frozen=True)
class ProtocolOptions:
    """Options of `jaxclr evaluate RUN --protocol NAME`."""

    protocol: Annotated[Protocol, tyro.conf.arg(name="")]

    data: Data
    """What to evaluate on; the run's own data unless set otherwise."""

    seeds: int = 1
    """How often to repeat what is drawn: labels, splits, initial values, views."""


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
    run = RunFolder(options.run)
    config = runtime.run_on_all(lambda: checkpointed(run))
    session = training.open_session(config)
    runtime.run_on_all(lambda: labelled_splits(session.dataset))
    with runtime.hold_on_first(run.locked()):
        state = newest(session, run, console)
        probe(session, run, state, console, baselines=options.baselines)


def _by_protocol(protocol: Protocol, name: str, arguments: list[str], console: rich.console.Console) -> None:
    if any(argument.startswith("--distributed.") for argument in arguments):
        # Of each process the same: all of them come here, and can end in order.
        raise runtime.SharedError(
            f"A protocol runs in one process: give jaxclr evaluate RUN --protocol {name} without `jaxclr launch` and "
            "without --distributed options. A run of several processes is evaluated so too."
        )
    folders = [a for a in arguments[:1] if not a.startswith("-")]
    if not folders and not {"-h", "--help"} & set(arguments):
        raise UserError(f"Give the folder of a run first: jaxclr evaluate RUN --protocol {name}.")
    run = RunFolder(pathlib.Path(*folders))
    own = run.config().data if folders else Data()
    options = parse(
        ProtocolOptions,
        arguments[len(folders) :],
        f"evaluate RUN --protocol {name}",
        default=ProtocolOptions(protocol, own),
        description=f"{first_line(type(protocol))} Writes what it finds into evaluation.json, under its name.",
    )
    if options.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {options.seeds}.")
    is_own = options.data.source == own.source
    if is_own and protocol.elsewhere:
        raise UserError(f"{name} needs other data than the run's own: give --data.source, for instance tfds:cifar10.")
    key = name if is_own else f"{name} {options.data.source}"
    session = training.open_session(checkpointed(run))
    with run.locked():
        state = newest(session, run, console)
        subject = on_data(session.subject(state), options.data)
        record = evaluate(subject, options.protocol, seeds=options.seeds)
        run.write_protocol(key, record)
    console.print(protocol_table(record))


def newest(session: Session, run: RunFolder, console: rich.console.Console) -> training.State:
    with Checkpoints(run.checkpoints) as checkpoints:
        return checkpoints.restore(session.state_shape(), say=functools.partial(say, console))


def checkpointed(run: RunFolder) -> Config:
    config = run.config()
    if not run.checkpoints.is_dir():
        raise UserError(f"{run.folder} has no checkpoint yet; continue it with `jaxclr resume {run.folder}`.")
    return config


def probe(
    session: Session,
    run: RunFolder,
    state: training.State,
    console: rich.console.Console,
    *,
    baselines: bool,
) -> None:
    record = closing_record(session.subject(state), baselines=baselines)
    runtime.run_on_first(lambda: run.write_evaluation(record))
    console.print(closing_table(record))
