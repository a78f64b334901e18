"""Figures of the page, and the notes that replace missing ones."""

import html
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


def drawn(what: str, draw: Callable[..., Sequence[Piece]], *args: Any) -> Sequence[Piece]:
    """The pieces that `draw` makes of the arguments, or a note with the reason why it fails.

    A picture that cannot be drawn never ends the report.
    """
    try:
        return draw(*args)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return [Missing(what, f"could not be drawn ({type(error).__name__}: {reason}).")]


def of_each(
    records: Sequence[Record], what: str, draw: Callable[[Record], Sequence[Piece]]
) -> list[Piece]:
    """The pieces of every run in turn."""
    return [piece for record in records for piece in drawn(f"{record.name}, {what}", draw, record)]


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
