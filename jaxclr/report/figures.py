"""Figures of the page, and the notes that replace missing ones."""

import html
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxclr.report.records import Record


class Figure(NamedTuple):
    """A figure of one run, or of all.

    Attributes:
      key: unique in the page.
      title: of a few words, plain text.
      body: HTML.
      caption: how to read it, plain text.
      run: whose it is; None: of all runs.
    """

    key: str
    title: str
    body: str
    caption: str = ""
    run: Record | None = None

    @property
    def html(self) -> str:
        run = self.run
        whose = (
            ""
            if run is None
            else f'<p class="whose">{swatch(run.number)} {html.escape(run.name)}</p>'
        )
        kind = "" if run is None else f' class="run{run.number}"'
        caption = f"<p>{html.escape(self.caption)}</p>" if self.caption else ""
        head = f"<figcaption>{whose}<h3>{html.escape(self.title)}</h3>{caption}</figcaption>"
        return f'<figure id="{self.key}"{kind}>\n{head}\n{self.body}\n</figure>\n'


class Missing(NamedTuple):
    """What replaces a figure that cannot be drawn."""

    title: str
    why: str

    @property
    def html(self) -> str:
        return f'<p class="missing">{html.escape(self.title)}: {html.escape(self.why)}</p>\n'


Piece = Figure | Missing


def of_each(records: Sequence[Record], draw: Callable[[Record], Sequence[Piece]]) -> list[Piece]:
    """The pieces of every run in turn."""
    return [piece for record in records for piece in draw(record)]


def missing(record: Record, what: str, why: str) -> list[Piece]:
    return [Missing(f"{record.name}, {what}", why)]


def swatch(number: int) -> str:
    """The color and dashes of a run, drawn as in the plots."""
    dashes = ("", "5 3", "6 2 1.5 2", "1.5 2")[(number - 1) % 4]
    return (
        f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true"><path d="M0 4H28" '
        f'stroke="var(--run{(number - 1) % 8 + 1})" stroke-width="3" '
        f'stroke-dasharray="{dashes}"/></svg>'
    )
