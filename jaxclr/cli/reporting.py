"""`jaxclr report`: what was learned, on a page."""

import dataclasses
import pathlib
from collections.abc import Sequence

import rich.console
import tyro

from jaxclr.cli.words import parse, say
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
    # Matplotlib takes as long to start as all else: only for those who need it.
    from jaxclr.report.page import write_report

    out = options.out or (options.runs[0] if len(options.runs) == 1 else pathlib.Path()) / "report.html"
    write_report(options.runs, out)
    say(console, f"The report is in {out}.")
