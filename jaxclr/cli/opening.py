"""Opening the run of a command."""

import rich.console

from jaxclr import api
from jaxclr.cli.console import print_text
from jaxclr.paths import Path
from jaxclr.processes import runtime


def open_run(folder: Path, console: rich.console.Console, *, trust: bool = False) -> api.Run:
    """Opens the run in a folder, and prints which of its code is executed."""
    run = api.Run(folder, trust=trust)
    runtime.run_on_all(lambda: run.config)
    if sources := run.sources():
        print_text(
            console,
            f"This run executes code stored with it: {', '.join(map(str, sources))}.",
        )
    return run
