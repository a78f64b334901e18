"""Pictures: nearest neighbors of a few images, and the views that the encoder is shown."""

import html
from collections.abc import Sequence

import numpy as np

from jaxclr.report.figures import Figure, Piece, missing
from jaxclr.report.plots import png
from jaxclr.report.records import Record
from jaxclr.runs.snapshots import Labels

QUERIES, NEIGHBORS = 12, 6


def neighbors(record: Record) -> list[Piece]:
    """The nearest gallery images of twelve queries, by the newest snapshot."""
    images, labels = record.images, record.labels
    if not record.end:
        return missing(record, "nearest neighbors", "the run has no snapshots.")
    if images is None:
        why = "the snapshots hold no pictures, because the data are not images."
        return missing(record, "nearest neighbors and views", why)
    gallery, queries = record.end.gallery, record.end.queries
    chosen = np.unique(np.linspace(0, len(queries) - 1, min(QUERIES, len(queries))).astype(int))
    cosines = queries[chosen] @ gallery.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBORS]
    rows, wrong = [], 0
    for row, query in enumerate(chosen):
        cells = [_picture(images.queries[query], f"Query{_of_query(labels, query)}", "query")]
        for column, index in enumerate(nearest[row]):
            pair = (labels.gallery[index], labels.queries[query]) if labels else (-1, -1)
            other = bool(min(pair) >= 0 and pair[0] != pair[1])
            wrong += other
            said = (
                f"Neighbor {column + 1}{_of_class(labels, pair[0])}, "
                f"cosine {cosines[row, index]:.3f}" + ", another class" * other
            )
            cells.append(_picture(images.gallery[index], said, "other" if other else ""))
        rows.append(cells)
    caption = "The query first, then the nearest training images, the nearest first."
    if record.labeled:
        caption += f" {wrong} of {nearest.size} are of another class: framed with dashes."
    caption = f"{caption} {record.channels}".strip()
    key, title = f"neighbors-{record.number}", f"Nearest neighbors of {len(chosen)} queries"
    return [Figure(key, title, _pictures(rows), caption, record)]


def views(record: Record) -> list[Piece]:
    """A few images, and random views of them; nothing if the data are not images."""
    if record.end and record.images is None:
        return []  # as `neighbors` says
    if record.images is None or not record.images.views:
        return missing(record, "views", "the run has no snapshots of them.")
    images, rows = record.images, []
    for index in range(len(images.views[0])):
        shown = (
            _picture(view[index], f"View {number}", "")
            for number, view in enumerate(images.views, 1)
        )
        said = f"Image{_of_query(record.labels, index)}"
        rows.append([_picture(images.queries[index], said, "query"), *shown])
    caption = f"The image first, then its views of one step. {record.channels}".strip()
    key, title = f"views-{record.number}", "Views in training"
    return [Figure(key, title, _pictures(rows), caption, record)]


def _pictures(rows: Sequence[Sequence[str]]) -> str:
    items = "".join(f"<li>{''.join(row)}</li>" for row in rows)
    return f'<ol class="pictures">{items}</ol>'


def _of_query(labels: Labels | None, index: int) -> str:
    return _of_class(labels, labels.queries[index]) if labels else ""


def _of_class(labels: Labels | None, label: int) -> str:
    return f" of class {labels.classes[label]}" if labels and label >= 0 else ""


def _picture(pixels: np.ndarray, said: str, kind: str) -> str:
    words = html.escape(said, quote=True)
    return f'<img class="{kind}" src="{png(pixels)}" alt="{words}" title="{words}">'
