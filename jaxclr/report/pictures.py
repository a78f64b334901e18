"""Pictures: nearest neighbors of a few images, and the views that the encoder is shown."""

import html
from collections.abc import Sequence

import numpy as np

from jaxclr.report.figures import Figure, Piece, missing
from jaxclr.report.plots import png
from jaxclr.report.records import Record

QUERIES, NEIGHBORS = 12, 6


def neighbors(record: Record) -> list[Piece]:
    """The nearest gallery images of twelve queries, by the newest snapshot."""
    if not record.end:
        return missing(record, "nearest neighbors", "the run has no snapshots.")
    if not record.pictured:
        why = "the snapshots hold no pictures, because the data are not images."
        return missing(record, "nearest neighbors and views", why)
    images = record.fixed
    queries, gallery = (np.asarray(record.end[name], np.float32) for name in ("queries", "gallery"))
    chosen = np.unique(np.linspace(0, len(queries) - 1, min(QUERIES, len(queries))).astype(int))
    cosines = queries[chosen] @ gallery.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBORS]
    rows, wrong = [], 0
    for row, query in enumerate(chosen):
        cells = [_query(record, "Query", query)]
        for column, index in enumerate(nearest[row]):
            other = (
                record.labeled and images["gallery_labels"][index] != images["query_labels"][query]
            )
            wrong += bool(other)
            said = (
                f"Neighbor {column + 1}{_of_class(record, 'gallery_labels', index)}, "
                f"cosine {cosines[row, index]:.3f}" + ", another class" * bool(other)
            )
            cells.append(_picture(images["gallery"][index], said, "other" if other else ""))
        rows.append(cells)
    caption = "The query first, then the nearest training images, the nearest first."
    if record.labeled:
        caption += f" {wrong} of {nearest.size} are of another class: framed with dashes."
    key, title = f"neighbors-{record.number}", f"Nearest neighbors of {len(chosen)} queries"
    return [Figure(key, title, _pictures(rows), caption, record)]


def views(record: Record) -> list[Piece]:
    """A few images, and random views of them; nothing if the data are not images."""
    if record.end and not record.pictured:
        return []  # as `neighbors` says
    found = sorted(
        (name for name in record.fixed if name.startswith("view_")),
        key=lambda name: int(name.partition("_")[2]),
    )
    if not found:
        return missing(record, "views", "the run has no snapshots.")
    images, rows = record.fixed, []
    for index in range(len(images[found[0]])):
        shown = (
            _picture(images[name][index], f"View {number}", "")
            for number, name in enumerate(found, 1)
        )
        rows.append([_query(record, "Image", index), *shown])
    caption = "The image first, then its views of one step."
    key, title = f"views-{record.number}", "Views in training"
    return [Figure(key, title, _pictures(rows), caption, record)]


def _pictures(rows: Sequence[Sequence[str]]) -> str:
    items = "".join(f"<li>{''.join(row)}</li>" for row in rows)
    return f'<ol class="pictures">{items}</ol>'


def _query(record: Record, word: str, index: int) -> str:
    said = f"{word}{_of_class(record, 'query_labels', index)}"
    return _picture(record.fixed["queries"][index], said, "query")


def _of_class(record: Record, labels: str, index: int) -> str:
    return (
        f" of class {record.fixed['classes'][record.fixed[labels][index]]}"
        if record.labeled
        else ""
    )


def _picture(pixels: np.ndarray, said: str, kind: str) -> str:
    words = html.escape(said, quote=True)
    return f'<img class="{kind}" src="{png(pixels)}" alt="{words}" title="{words}">'
