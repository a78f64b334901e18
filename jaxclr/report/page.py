"""The page: sections of figures in a template, with its style and its script inside."""

import html
import importlib.resources
import string
from collections.abc import Sequence

from jaxclr.paths import Path
from jaxclr.report import pictures
from jaxclr.report.curves import curves
from jaxclr.report.embeddings import cosines, plane, spectra
from jaxclr.report.figures import Piece, drawn, of_each
from jaxclr.report.maps import maps
from jaxclr.report.matrices import affinities, confusions
from jaxclr.report.records import Record, read_records
from jaxclr.report.summary import configuration, figures_tables, headlines, legend, warnings
from jaxclr.runs.files import check_names_file, make_folder, write_atomically, writing


def write_report(
    folders: Sequence[Path],
    out: Path,
    *,
    channels: Sequence[int] | None = None,
) -> None:
    """Writes the report of one or more runs as one self-contained HTML file.

    Args:
      folders: of the runs, at least one.
      out: the file; its folder is made if need be.
      channels: of images that pictures show; see `read_records`.

    Raises:
      UserError: a folder is not a run or cannot be read, or the file cannot be written.
    """
    check_names_file(out)
    text = page(read_records(folders, channels))
    with writing(out.parent):
        make_folder(out.parent)
        write_atomically(out, text)


def page(records: Sequence[Record]) -> str:
    """The HTML of runs."""
    part = lambda name: importlib.resources.files("jaxclr.report").joinpath(name).read_text()
    sections = {
        "Curves": curves(records),
        "Geometry of the embeddings": [
            *drawn("Alignment and uniformity", plane, records),
            *of_each(records, "spectrum", spectra),
            *of_each(records, "positives and negatives", cosines),
        ],
        "Affinity matrix of fixed examples": of_each(records, "affinity matrix", affinities),
        "Map of the representations": of_each(records, "map of the representations", maps),
        "Neighbors, errors, views": [
            *of_each(records, "nearest neighbors", pictures.neighbors),
            *of_each(records, "errors by class", confusions),
            *of_each(records, "views", pictures.views),
        ],
    }
    keys = {title: f"section-{number}" for number, title in enumerate(sections, 1)}
    return string.Template(part("page.html")).substitute(
        title=html.escape(", ".join(f"{record.method} ({record.name})" for record in records)),
        heading=html.escape(", ".join(dict.fromkeys(record.method for record in records))),
        runs=len(records),
        style=part("page.css"),
        script=part("page.js"),
        warnings=warnings(records),
        legend=legend(records),
        headlines=headlines(records),
        figures=figures_tables(records),
        links="".join(f'<a href="#{keys[title]}">{title}</a>' for title in sections),
        sections="".join(
            _section(keys[title], title, pieces) for title, pieces in sections.items()
        ),
        configuration=configuration(records),
    )


def _section(key: str, title: str, pieces: Sequence[Piece]) -> str:
    body = "".join(piece.html for piece in pieces)
    return (
        f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>\n'
        f'<div class="grid">\n{body}</div>\n</section>\n'
    )
