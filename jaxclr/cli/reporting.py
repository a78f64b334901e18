"""`jaxclr report`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

import rich.console
import tyro

from jaxclr import api
from jaxclr.cli.console import parse, print_text
from jaxclr.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Options of `jaxclr report`."""

    runs: tyro.conf.Positional[
        Annotated[tuple[pathlib.Path, ...], tyro.conf.arg(metavar="RUN [RUN ...]")]
    ]
    """Folders of the runs, which are shown side by side."""

    out: pathlib.Path | None = None
    """HTML file; None: report.html in the run's folder, or in the current one for several runs."""

    report_channels: tuple[int, ...] | None = None
    """One or three channels of images that pictures show, counted from 1; None: the first three."""


def report(arguments: Sequence[str], console: rich.console.Console) -> None:
    """Write an HTML report of runs: jaxclr report RUN [RUN ...] [--out FILE]"""
    description = "Write a self-contained HTML report of one or more runs."
    options = parse(ReportOptions, arguments, "report", description=description)
    if not options.runs:
        raise UserError("Give the folder of a run: jaxclr report RUN [RUN ...].")
    path = api.write_report(list(options.runs), options.out, channels=options.report_channels)
    print_text(console, f"The report is in {path}.")
