"""The command `jaxclr`: train, resume, evaluate, report, embed, export, import, list; `jaxclr launch` is in `jaxclr.processes.launch`."""

import dataclasses
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence

# JAX's Cholesky and solves on CPUs call OpenBLAS, whose threads wait for each other where devices share the cores: a step
# of SimTrace on two virtual devices took 178 ms with them and 9 ms without. It reads this once, when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import rich.console
import tyro

from jaxclr import errors
from jaxclr.cli.judging import evaluate_run
from jaxclr.cli.listing import list_names
from jaxclr.cli.pretraining import resume, train
from jaxclr.cli.reporting import report
from jaxclr.cli.weights import embed, export, import_
from jaxclr.cli.words import complain, say
from jaxclr.errors import UserError
from jaxclr.processes import launch, runtime
from jaxclr.processes.runtime import Distributed
from jaxclr.processes.signals import Stopped

COMMANDS: dict[str, Callable[[Sequence[str], rich.console.Console], None]] = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate_run,
    "report": report,
    "embed": embed,
    "export": export,
    "import": import_,
    "list": list_names,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; what ends it early is one sentence on standard error and an exit status (`STATUSES`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Orbax logs what it also raises, and that is told in a sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    console = rich.console.Console()
    try:
        runtime.initialize(_parse_distributed(arguments))
        console.quiet = not runtime.is_first()
        if not arguments or arguments[0] in ("-h", "--help"):
            console.print("jaxclr: self-supervised learning on the global affinity matrix\n")
            for command in COMMANDS.values():
                say(console, f"  {inspect.getdoc(command)}")
            say(console, f"  {launch.HELP.splitlines()[0]}")
            console.print("\n`jaxclr COMMAND --help` shows every option and its default.")
            return
        if arguments[0] not in COMMANDS:
            raise errors.unknown("command", arguments[0], [*COMMANDS, "launch"])
        COMMANDS[arguments[0]](arguments[1:], console)
    except runtime.SharedError as error:
        if runtime.is_first():
            complain(f"error: {error}")
        sys.exit(2)
    except Stopped as stopped:
        if runtime.is_first():
            complain(str(stopped))
        sys.exit(Stopped.STATUS)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.stdout.flush()
        # At once: a checkpoint that is being written has no name yet, and those before it are whole.
        os._exit(130)
    except Exception as error:
        _fail(error)


def _fail(error: Exception) -> None:
    """Ends a process by what went wrong in it."""
    if runtime.peer_lost(error):
        complain(launch.peer_died(jax.process_index(), launch.first_line(error)))
        status = Stopped.STATUS
    elif isinstance(error, UserError):
        complain(f"error: {error}")
        status = 2
    elif runtime.is_single():
        raise error
    else:
        traceback.print_exception(error)
        status = 1
    if runtime.is_single():
        sys.exit(status)
    # At once: on its way out JAX waits for the other processes, which wait for this one.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _parse_distributed(arguments: Sequence[str]) -> Distributed:
    """What the arguments say of processes; read before all else, since an experiment file may compute."""
    given = [argument for argument in arguments if argument.startswith("--distributed.")]
    if not given:
        return Distributed()
    return tyro.cli(_Processes, args=arguments[1:], add_help=False, return_unknown_args=True)[0].distributed


@dataclasses.dataclass(frozen=True)
class _Processes:
    distributed: Distributed = Distributed()
