"""Tables of configurations and results, and warnings."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxclr.report.figures import swatch
from jaxclr.report.records import Record
from jaxclr.text import displayable, displayable_lines

MOST_HEADLINES = 5
_HEADLINES = (
    *(
        "linear, all labels",
        "linear, 5 labels a class",
        "kNN 20",
        "effective rank, centered",
        "total variance",
    ),
    *("alignment", "uniformity", "RankMe, uncentered"),
)


class Value(NamedTuple):
    """A figure as text, with a note."""

    text: str
    note: str = ""


def warnings(records: Sequence[Record]) -> str:
    """Runs that collapsed, stopped at numbers that are not finite, or have damaged files."""
    boxes = []
    for record in records:
        steps, texts = record.series("warning")
        for step, text in zip(steps, texts, strict=True):
            boxes.append((record, f"From step {step}: {text}"))
        if record.bad_step:
            said = f"Loss, gradient or update was not finite at step {record.bad_step.step}"
            boxes.append((record, f"{said}; the state before it is kept."))
        boxes += [(record, note) for note in record.notes]
    return "".join(
        f'<p class="warning" role="note"><strong>Warning, {html.escape(record.name)}.</strong> '
        f"{html.escape(displayable(text))}</p>\n"
        for record, text in boxes
    )


def legend(records: Sequence[Record]) -> str:
    """The colors of the runs, as buttons that hide them and show them again."""
    return "".join(
        f'<button type="button" aria-pressed="true" data-run="run{record.number}">'
        f"{swatch(record.number)} {html.escape(record.name)}</button>"
        for record in records
    )


def headlines(records: Sequence[Record]) -> str:
    """The few figures that matter most, large, of all runs."""
    all_of = [_figures(record) for record in records]
    names = [name for name in _HEADLINES if any(name in figures for figures in all_of)][
        :MOST_HEADLINES
    ]
    return "".join(
        f"<div><dt>{html.escape(name)}</dt>"
        + "".join(
            _headline(r, figures[name])
            for r, figures in zip(records, all_of, strict=True)
            if name in figures
        )
        + "</div>"
        for name in names
    )


def _headline(record: Record, figure: Value) -> str:
    name = f'<span class="said">{html.escape(record.name)}: </span>'
    shown = f"<b>{swatch(record.number)} {name}{html.escape(figure.text)}</b>{_note(figure)}"
    return f'<dd class="run{record.number}">{shown}</dd>'


def figures_tables(records: Sequence[Record]) -> str:
    """Tables with a column for every run: its settings and its results."""
    columns = {title: [figures(record) for record in records] for title, figures in _GROUPS.items()}
    return "".join(_table(title, records, some) for title, some in columns.items())


def _table(title: str, records: Sequence[Record], columns: Sequence[Mapping[str, Value]]) -> str:
    """A figure a row; nothing if no run has any."""
    names = dict.fromkeys(name for column in columns for name in column)
    if not names:
        return ""
    runs = "".join(f"<th scope=col>{swatch(r.number)} {html.escape(r.name)}</th>" for r in records)
    head = f"<thead><tr><td></td>{runs}</tr></thead>" if len(records) > 1 else ""
    cell = lambda figure: f"<td>{html.escape(figure.text)}{_note(figure)}</td>"
    cells = lambda name: "".join(cell(column.get(name, Value(""))) for column in columns)
    rows = "".join(
        f"<tr><th scope=row>{html.escape(displayable(name))}</th>{cells(name)}</tr>"
        for name in names
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{title}">'
        f"<table><caption>{title}</caption>{head}<tbody>{rows}</tbody></table></div>\n"
    )


def _note(figure: Value) -> str:
    note = html.escape(displayable(figure.note))
    return f" <small>{note}</small>" if note else ""


def configuration(records: Sequence[Record]) -> str:
    """The fields in which the runs differ, and each configuration as a whole."""
    flat = [dict(_leaves(record.config.tree)) for record in records]
    names = sorted({name for leaves in flat for name in leaves})
    differing = [name for name in names if len({_json(leaves.get(name)) for leaves in flat}) > 1]
    parts = []
    if differing:
        head = "".join(f"<th scope=col>{html.escape(record.name)}</th>" for record in records)
        said = lambda leaves, name: html.escape(_json(leaves[name])) if name in leaves else "-"
        cells = lambda name: "".join(f"<td>{said(leaves, name)}</td>" for leaves in flat)
        body = "".join(
            f"<tr><th scope=row>{html.escape(name)}</th>{cells(name)}</tr>" for name in differing
        )
        parts.append(
            '<div class="wide" tabindex="0" role="region" aria-label="Fields that differ">'
            f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    for record in records:
        text = html.escape(_json(record.config.tree, indent=2))
        summary = f"<summary>config.json of {html.escape(record.name)}</summary>"
        parts.append(f"<details>{summary}<pre tabindex=0>{text}</pre></details>")
    return "".join(parts)


def _json(tree: Any, indent: int | None = None) -> str:
    """JSON for people: letters of all scripts as they are."""
    return displayable_lines(json.dumps(tree, indent=indent, ensure_ascii=False))


def _what(record: Record) -> dict[str, Value]:
    config = record.config
    images = record.evaluation.train_images
    rows = {
        "method": config.method,
        "encoder": config.encoder,
        "data": config.data + (f", {images} examples" if images else ""),
        "length": f"{config.epochs} epochs, " * (config.steps is None)
        + f"{record.last_step} steps of {config.batch_size} examples",
        "seed": str(config.seed),
    }
    values = {name: Value(text) for name, text in rows.items()}
    if at := ", ".join(f"at step {step} of {before}" for step, before in config.extensions):
        values["length"] = values["length"]._replace(note=f"extended {at}")
    return values


def _accuracies(record: Record) -> dict[str, Value]:
    """Of the trained encoder; the note has those of raw pixels, untrained, and of earlier steps."""
    features = dict(record.evaluation.features)
    trained = features.pop("trained", {})
    features |= {f"step {step}": of for step, of in record.evaluation.earlier.items()}
    old = record.evaluation.step not in (None, record.last_step)
    figures = {}
    for name, value in trained.items():
        kind = (
            name
            if name.startswith("kNN")
            else f"linear, {'all labels' if name == 'all' else name + ' a class'}"
        )
        others = [f"step {record.evaluation.step}"] * old + [
            f"{feature} {100 * of[name].mean:.1f}" for feature, of in features.items() if name in of
        ]
        figures[kind] = Value(_number(value.mean, value.std, percent=True), ", ".join(others))
    if not trained and (accuracy := record.last("knn_20")) is not None:
        figures["kNN 20"] = Value(_number(accuracy, percent=True), "during training")
    return figures


def _protocols(record: Record) -> dict[str, Value]:
    """Figures by protocol; repetitions, and a step that is not the last one, are noted."""
    figures = {}
    for name, found in record.evaluation.protocols.items():
        for figure, value in found.figures.items():
            draws = len(value.values)
            notes = [f"{draws} draws"] * (draws > 1) + [f"step {found.step}"] * (
                found.step != record.last_step
            )
            std = value.std if draws > 1 else math.nan
            kind = name if len(found.figures) == 1 else f"{name}, {figure}"
            figures[kind] = Value(_number(value.mean, std, percent=found.percent), ", ".join(notes))
    return figures


def _signs(record: Record) -> dict[str, Value]:
    named = {
        "loss": "loss",
        "effective_rank": "effective rank, centered",
        "rank_me": "RankMe, uncentered",
        "total_variance": "total variance",
        "alignment": "alignment",
        "uniformity": "uniformity",
        "images_per_second": "examples per second",
    }
    found = {title: record.last(name) for name, title in named.items()}
    signs = {title: Value(f"{value:.4g}") for title, value in found.items() if value is not None}
    title, width = named["effective_rank"], record.last("spectrum")
    if title in signs and width:
        signs[title] = signs[title]._replace(note=f"of {len(width)}")
    return signs


def _figures(record: Record) -> dict[str, Value]:
    return {**_accuracies(record), **_signs(record)}


def _number(mean: float, std: float = math.nan, *, percent: bool) -> str:
    """A figure, and its deviation unless that is NaN."""
    shown = (lambda value: f"{100 * value:.1f}") if percent else (lambda value: f"{value:.3f}")
    words = shown(mean) + (f" ± {shown(std)}" if math.isfinite(std) else "") + " %" * percent
    return words.replace(" ", "\N{NO-BREAK SPACE}")


_GROUPS = {
    "Run": _what,
    "Accuracy": _accuracies,
    "By protocol": _protocols,
    "Last measured in training": _signs,
}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        leaf
        for name, value in tree.items()
        for leaf in (
            _leaves(value, f"{prefix}{name}.")
            if isinstance(value, dict)
            else [(prefix + name, value)]
        )
    ]
