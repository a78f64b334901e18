"""The command `jaxclr`; `jaxclr launch` is in `jaxclr.processes.launch`.

The module of a command is imported when the command is run, so that `jaxclr --help` and
`jaxclr list` start quickly and without a JAX backend.
"""

import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

import rich.console

from jaxclr import errors
from jaxclr.cli.console import print_error
from jaxclr.cli.layout import columns, margin, print_lines
from jaxclr.errors import UserError, reason
from jaxclr.processes import launch
from jaxclr.processes.signals import Stopped
from jaxclr.processes.startup import raise_on_interrupt


class Command(NamedTuple):
    """A command.

    Attributes:
      module: module in jaxclr.cli.
      function: function in that module, of the arguments after the command's name and a console.
      summary: description and usage, in one line.
    """

    module: str
    function: str
    summary: str


COMMANDS = {
    "train": Command(
        "pretraining",
        "train",
        "Train an encoder: jaxclr train EXPERIMENT.py [--method NAME] [--field value ...]",
    ),
    "resume": Command(
        "pretraining",
        "resume",
        "Continue a run from its newest checkpoint: jaxclr resume RUN [--epochs N]",
    ),
    "evaluate": Command(
        "evaluating",
        "evaluate_run",
        "Evaluate a run's newest checkpoint: "
        "jaxclr evaluate RUN [--protocol NAME] [--field value ...]",
    ),
    "report": Command(
        "reporting",
        "report",
        "Write an HTML report of runs: jaxclr report RUN [RUN ...] [--out FILE]",
    ),
    "embed": Command(
        "exchanging",
        "embed",
        "Write representations of a data set: jaxclr embed RUN [DATA] --out FILE.npz|.parquet",
    ),
    "export": Command(
        "exchanging",
        "export",
        "Export an encoder for other programs: "
        "jaxclr export RUN --to safetensors|stablehlo --out FILE",
    ),
    "import": Command(
        "exchanging",
        "import_",
        "Create a run from pretrained weights: jaxclr import FILE --encoder NAME --out RUN",
    ),
    "list": Command(
        "listing",
        "list_names",
        "List methods, losses, encoders, ..., or show one: jaxclr list [KIND [NAME]] [--json]",
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command. Errors are one sentence on standard error; see `console.STATUSES`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # On CPUs, JAX's Cholesky and solves call OpenBLAS, whose threads block each other if devices
    # share cores: a step of SimTrace on two virtual devices took 178 ms with several threads and
    # 9 ms with one. OpenBLAS reads this variable once, when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Orbax logs errors that it also raises, and these are printed below.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):  # of which tyro prints arguments as they are
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console = rich.console.Console()
    try:
        if not arguments or arguments[0] in ("-h", "--help"):
            _help(console)
            return
        if arguments[0] not in COMMANDS:
            raise errors.unknown("command", arguments[0], [*COMMANDS, "launch"])
        command = COMMANDS[arguments[0]]
        if any(argument.startswith("--distributed.") for argument in arguments):
            _join_processes(arguments, console)
        function = getattr(
            importlib.import_module(f"jaxclr.cli.{command.module}"), command.function
        )
        raise_on_interrupt()
        function(arguments[1:], console)
    except Stopped as stopped:
        if _prints():
            print_error(str(stopped))
        sys.exit(Stopped.STATUS)
    except KeyboardInterrupt:
        print_error("interrupted")
        sys.stdout.flush()
        # Exits without cleanup: an unfinished checkpoint has no name yet, and others are complete.
        os._exit(130)
    except errors.SharedError as error:
        if _prints():
            print_error(f"error: {error}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        _fail(errors.missing_extra(error) or error)
    except Exception as error:
        _fail(error)


def _help(console: rich.console.Console) -> None:
    summaries = {name: command.summary for name, command in COMMANDS.items()}
    summaries["launch"] = launch.HELP.splitlines()[0]
    rows = []
    for name, summary in summaries.items():
        text, _, usage = summary.partition(": ")
        rows += [(name, f"{text}."), ("", usage)]
    lines = (
        "jaxclr: self-supervised learning on the global affinity matrix",
        "",
        *columns(rows, margin(console)),
        "",
        "`jaxclr COMMAND --help` shows the options of a command.",
    )
    print_lines(console, lines)


def _join_processes(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Joins the processes, before an experiment file that may use JAX is executed."""
    from jaxclr.cli.distributed import parse_distributed
    from jaxclr.processes import runtime

    runtime.initialize(parse_distributed(arguments))
    console.quiet = not runtime.is_first()


def _prints() -> bool:
    """Whether this process is the one that prints."""
    runtime = sys.modules.get("jaxclr.processes.runtime")
    return runtime is None or runtime.is_first()


def _fail(error: Exception) -> None:
    """Exits with the status of an error."""
    # Before JAX is loaded there is only one process.
    runtime = sys.modules.get("jaxclr.processes.runtime")
    single = runtime is None or runtime.is_single()
    if runtime is not None and runtime.peer_lost(error):
        import jax

        print_error(launch.peer_died(jax.process_index(), reason(error)))
        status = Stopped.STATUS
    elif refused := error if isinstance(error, UserError) else errors.of_system(error):
        print_error(f"error: {refused}")
        status = 2
    elif isinstance(error, MemoryError) or "can't start new thread" in str(error):
        print_error(
            f"error: This process may not have more memory or threads ({reason(error)})."
            " Raise the limits (ulimit -v, ulimit -u), or use smaller or streamed data."
        )
        status = 2
    elif single:
        raise error
    else:
        traceback.print_exception(error)
        status = 1
    if single:
        sys.exit(status)
    # Exits without cleanup, in which JAX would wait for processes that wait for this one.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
