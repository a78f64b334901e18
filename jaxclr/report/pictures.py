"""Pictures: nearest neighbours of a few images, and the views that the encoder is shown."""

import html

import numpy as np

from jaxclr.report.figures import Figure, Piece, missing
from jaxclr.report.plots import png
from jaxclr.report.records import Record

QUERIES, NEIGHBOURS = 12, 6


def neighbours(record: Record) -> list[Piece]:
    """The nearest gallery images of twelve queries, by the newest snapshot."""
    if not record.end:
        return missing(record, "nearest neighbours", "the run has no snapshots.")
    images = record.images
    queries, gallery = (np.asarray(record.end[name], np.float32) for name in ("queries", "gallery"))
    chosen = np.unique(np.linspace(0, len(queries) - 1, min(QUERIES, len(queries))).astype(int))
    cosines = queries[chosen] @ gallery.T
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    rows, wrong = [], 0
    for row, query in enumerate(chosen):
        cells = [_picture(images["queries"][query], f"Query{_of_class(record, 'query_labels', query)}", "query")]
        for column, place in enumerate(nearest[row]):
            other = record.labelled and images["gallery_labels"][place] != images["query_labels"][query]
            wrong += bool(other)
            said = (
                f"Neighbour {column + 1}{_of_class(record, 'gallery_labels', place)}, cosine {cosines[row, place]:.3f}"
                + ", another class" * bool(other)
            )
            cells.append(_picture(images["gallery"][place], said, "other" if other else ""))
        rows.append(f"<li>{''.join(cells)}</li>")
    caption = "The query first, then the nearest training images, the nearest first."
    if record.labelled:
        caption += f" {wrong} of {nearest.size} are of another class: framed with dashes."
    body = f'<ol class="pictures">{"".join(rows)}</ol>'
    return [Figure(f"neighbours-{record.number}", f"Nearest neighbours of {len(chosen)} queries", body, caption, record)]


def views(record: Record) -> list[Piece]:
    """A few images, and the random views that are taken of them."""
    found = sorted(
        (name for name in record.images if name.startswith("view_")), key=lambda name: int(name.partition("_")[2])
    )
    if not found:
        return missing(record, "views", "the run has no snapshots.")
    images = record.images
    rows = []
    for index in range(len(images[found[0]])):
        cells = [_picture(images["queries"][index], f"Image{_of_class(record, 'query_labels', index)}", "query")]
        cells += [_picture(images[name][index], f"View {number}", "") for number, name in enumerate(found, 1)]
        rows.append(f"<li>{''.join(cells)}</li>")
    body = f'<ol class="pictures">{"".join(rows)}</ol>'
    caption = "The image first, then its views of one step."
    return [Figure(f"views-{record.number}", "Views that it was shown", body, caption, record)]


def _of_class(record: Record, labels: str, index: int) -> str:
    return f" of class {record.images['classes'][record.images[labels][index]]}" if record.labelled else ""


def _picture(pixels: np.ndarray, said: str, kind: str) -> str:
    words = html.escape(said, quote=True)
    return f'<img class="{kind}" src="{png(pixels)}" alt="{words}" title="{words}">'
