"""Maps of the representations; points show their images, if there are any."""

import html
import json
import warnings
from typing import Any

import matplotlib
import matplotlib.colors
import numpy as np

from jaxclr.report.figures import Figure, Piece, missing
from jaxclr.report.plots import CARD, Plot, line_of, png
from jaxclr.report.records import Record

FEWEST = 8  # points that t-SNE can place
COLUMNS = 20  # of the sheet of thumbnails
UNKNOWN = (0.5, 0.5, 0.5, 1.0)  # color of points without a label


def maps(record: Record) -> list[Piece]:
    """The fixed queries in the plane, by PCA and by t-SNE."""
    if not record.end:
        return missing(record, "map of the representations", "the run has no snapshots.")
    points = record.end.queries
    found = {"PCA": _pca(points)}
    if len(points) >= FEWEST:
        found["t-SNE"] = _tsne(points)
    sheet = _sheet(record)
    pieces = []
    for name, (positions, caption) in found.items():
        kind = name.lower().replace("-", "")
        key = f"map-{kind}-{record.number}"
        colored = ", colored by class" if record.labeled else ""
        alt = f"Map of {len(points)} examples of {record.name} by {name}{colored}. {caption}"
        with Plot(key, alt, size=(5.4, 3.8)) as plot:
            dots = {"c": _colors(record), "edgecolors": CARD, "linewidths": 0.5}
            plot.axes.scatter(*positions.T, s=22, **dots, gid="class-points")
            plot.axes.set(xticks=[], yticks=[], aspect="equal" if kind == "pca" else "auto")
            plot.axes.grid(visible=False)
            for side in plot.axes.spines.values():
                side.set_visible(False)
        svg = plot.html.replace("<svg", '<svg tabindex="0"', 1)
        body = _legend(record) + (
            f'<div class="map" data-sheet="sheet-{record.number}">{svg}'
            '<p class="shown" aria-live="polite">Point at a dot, or focus the map and press the '
            "arrow keys.</p></div>"
        )
        if kind == "pca":
            body += sheet
        caption = f"{caption} {record.channels}".strip()
        pieces.append(Figure(key, f"Map by {name}", body, caption, record))
    return pieces


def _pca(points: np.ndarray) -> tuple[np.ndarray, str]:
    centered = points - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    two = (left * values)[:, :2]
    two = np.pad(two, ((0, 0), (0, 2 - two.shape[1])))
    share = np.sum(values[:2] ** 2) / max(np.sum(values**2), 1e-30)
    return two, f"The two directions of largest variance, {share:.0%} of the total."


def _tsne(points: np.ndarray) -> tuple[np.ndarray, str]:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(points) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about coinciding points of a collapsed encoder
        # Exact: for a few hundred points it takes a quarter of the time of Barnes-Hut. Random:
        # coinciding points have no principal axes to start from.
        tsne = TSNE(
            perplexity=perplexity, method="exact", max_iter=500, init="random", random_state=0
        )
        found = tsne.fit_transform(points)
    return (
        found,
        f"Neighbors stay neighbors (perplexity {perplexity:.3g}); "
        "sizes of groups and gaps have no meaning.",
    )


def _palette(count: int) -> np.ndarray:
    name = "tab10" if count <= 10 else "tab20" if count <= 20 else "hsv"
    colors = matplotlib.colormaps[name]
    return colors(np.arange(count)) if count <= 20 else colors(np.linspace(0, 0.95, count))


def _colors(record: Record) -> str | np.ndarray:
    labels = record.labels
    if labels is None or not record.labeled:
        return line_of(record.number)["color"]
    colors = _palette(len(labels.classes))[labels.queries]
    colors[labels.queries < 0] = UNKNOWN
    return colors


def _legend(record: Record) -> str:
    """Names of the classes, if there are few enough colors."""
    classes = record.labels.classes if record.labels else ()
    if not record.labeled or len(classes) > 20:
        return ""
    colors = [matplotlib.colors.to_hex(color) for color in _palette(len(classes))]
    entries = (
        f'<li><span class="dot" style="background:{color}"></span>{html.escape(name)}</li>'
        for name, color in zip(classes, colors, strict=True)
    )
    return f'<ul class="classes" aria-label="Classes">{"".join(entries)}</ul>'


def _sheet(record: Record) -> str:
    """Names of the points for the page's script, and all thumbnails in one picture."""
    names = []
    if record.labels and record.labeled:
        names = [
            record.labels.classes[label] if label >= 0 else "no label"
            for label in record.labels.queries
        ]
    data: dict[str, Any] = {"names": names}
    if record.images is None:
        return f"<span hidden {_attributes(record, data)}></span>"
    images = record.images.queries
    rows = -(-len(images) // COLUMNS)
    padded = np.zeros((rows * COLUMNS, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    height, width, channels = images.shape[1:]
    data |= {"columns": COLUMNS, "width": width, "height": height}
    sheet = padded.reshape(rows, COLUMNS, height, width, channels).swapaxes(1, 2)
    address = png(sheet.reshape(rows * height, COLUMNS * width, channels))
    alt = f'alt="Thumbnails of the images in the maps" width="{COLUMNS * width}"'
    return f'<img hidden {_attributes(record, data)} src="{address}" {alt}>'


def _attributes(record: Record, data: dict) -> str:
    return f"id=sheet-{record.number} data-points='{html.escape(json.dumps(data), quote=True)}'"
