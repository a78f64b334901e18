"""Opening the run that a command names."""

import pathlib

import rich.console

from jaxclr import api
from jaxclr.cli.console import say
from jaxclr.processes import runtime


def open_run(
    folder: pathlib.Path, console: rich.console.Console, *, trust: bool = False
) -> api.Run:
    """The run in a folder, whose code is said to be run, if it has any."""
    run = api.Run(folder, trust=trust)
    runtime.run_on_all(lambda: run.config)
    if sources := run.sources():
        say(
            console,
            f"Parts of this run are defined by its own code: {', '.join(map(str, sources))}.",
        )
    return run
