"""`jaxclr report`: what was learned, on a page."""

import dataclasses
import pathlib
from collections.abc import Sequence

import rich.console
import tyro

from jaxclr import api
from jaxclr.cli.console import parse, say
from jaxclr.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Options of `jaxclr report`."""

    runs: tyro.conf.Positional[tuple[pathlib.Path, ...]]
    """Folders of runs, which are shown side by side."""

    out: pathlib.Path | None = None
    """The HTML file; None: report.html in the folder of the run, or for several runs here."""


def report(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Show what was learned in one HTML file: jaxclr report RUN [RUN ...] [--out FILE]"""
    words = "Writes one HTML file about runs side by side, which needs neither network nor data nor other files."
    options = parse(ReportOptions, arguments, "report", description=words)
    if not options.runs:
        raise UserError("Give the folder of a run: jaxclr report RUN [RUN ...].")
    say(console, f"The report is in {api.write_report(list(options.runs), options.out)}.")
