"""Plots by matplotlib as SVG inside the page, in the page's own colors, light or dark."""

import base64
import html
import io
import re
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Placeholders, which `_inline` replaces by the CSS variables of the page.
INK, GRID, ALARM, CARD = "#0000e0", "#0000e1", "#0000e2", "#0000e3"
_RUN = "#0000f{}"
RUNS = 8  # colors; the next run has the first one again, with other dashes
_DASHES = ("-", "--", "-.", ":")

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "axes.facecolor": "none",
    "legend.edgecolor": "none",
    "legend.facecolor": CARD,
    "legend.fontsize": 9,
}


class Plot:
    """One set of axes, used as a context manager; `html` is its SVG afterwards.

    Args:
      key: unique in the page.
      alt: what the plot shows, in words.
      size: inches.
    """

    def __init__(self, key: str, alt: str, *, size: tuple[float, float] = (4.3, 2.7)):
        self._key, self._alt = key, alt
        self._style = matplotlib.rc_context({**_STYLE, "svg.hashsalt": key})
        self._size = size
        self.html = ""

    def __enter__(self) -> Self:
        self._style.__enter__()
        self.figure = Figure(figsize=self._size, layout="constrained")
        self.axes: Axes = self.figure.add_subplot()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            buffer = io.StringIO()
            with warnings.catch_warnings():
                # The text stays text, in the fonts of the reader of the page.
                warnings.filterwarnings("ignore", "Glyph .* missing from")
                self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            self.html = _inline(buffer.getvalue(), self._alt)
        self._style.__exit__(kind, error, trace)


def line_of(number: int) -> dict[str, Any]:
    """How matplotlib draws the lines of a run; the legend's buttons find them by their class."""
    color = (number - 1) % RUNS + 1
    return {
        "color": _RUN.format(color),
        "linestyle": _DASHES[(number - 1) % len(_DASHES)],
        "gid": f"class-run{number}",
    }


def text(words: str, most: int) -> str:
    """A user's text for Matplotlib, cut to a number of characters; dollar signs are escaped."""
    return words[:most].replace("$", r"\$")


def thin(
    steps: Sequence[int], values: Sequence[float], most: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most so many points, each the mean of its neighbors."""
    groups = min(most, len(steps))
    split = lambda x: np.array(
        [part.mean() for part in np.array_split(np.asarray(x, float), groups)]
    )
    return (
        (split(steps), split(values))
        if len(steps) > most
        else (np.asarray(steps), np.asarray(values))
    )


def png(pixels: np.ndarray) -> str:
    """A picture, uint8 [h, w, C], as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        buffer, "PNG", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _inline(svg: str, alt: str) -> str:
    """SVG as a part of HTML: no prologue, only names that it refers to, colors of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="class-([\w-]+)"', r' class="\1"', svg)
    referred = set(re.findall(r"""(?:href="#|url\(#)([\w-]+)""", svg))
    svg = re.sub(
        r' id="([\w.-]+)"', lambda found: found.group() if found[1] in referred else "", svg
    )
    opening = svg[: svg.index(">") + 1]
    (box,) = re.findall(r'viewBox="[^"]*"', opening)
    svg = (
        f'<svg {box} role="img" aria-label="{html.escape(alt, quote=True)}">' + svg[len(opening) :]
    )
    svg = svg.replace("xlink:href", "href")
    for color, name in ((INK, "ink"), (GRID, "grid"), (ALARM, "alarm"), (CARD, "card")):
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r"#0000f(\d)", r"var(--run\1)", svg)
    return re.sub(r"\n\s*", "\n", svg)
