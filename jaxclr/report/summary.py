"""What was run, what came of it, and what went wrong."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxclr.report.figures import swatch
from jaxclr.report.records import Record


def warnings(records: Sequence[Record]) -> str:
    """Runs that collapsed, or stopped at numbers that are not finite; nothing without any."""
    boxes = []
    for record in records:
        steps, texts = record.series("warning")
        for step, text in zip(steps, texts, strict=True):
            boxes.append((record, f"From step {step}: {text}"))
        if record.bad_step:
            step = record.bad_step["step"]
            boxes.append((record, f"Loss, gradient or update was not finite at step {step}; the state before it is kept."))
    return "".join(
        f'<p class="warning" role="note"><strong>Warning, {html.escape(record.name)}.</strong> {html.escape(text)}</p>\n'
        for record, text in boxes
    )


def legend(records: Sequence[Record]) -> str:
    """The colours of the runs, as buttons that hide them and show them again."""
    return "".join(
        f'<button type="button" aria-pressed="true" data-run="run{record.number}">{swatch(record.number)} '
        f"{html.escape(record.name)}</button>"
        for record in records
    )


def figures_table(records: Sequence[Record]) -> str:
    """A column for every run: what it is, and the figures that matter."""
    rows: dict[str, list[str]] = {}
    for record in records:
        for name, text in {**_what(record), **_accuracies(record), **_signs(record)}.items():
            column = rows.setdefault(name, [])
            column += [""] * (record.number - 1 - len(column)) + [text]
    head = "".join(f"<th scope=col>{swatch(r.number)} {html.escape(r.name)}</th>" for r in records)
    body = "".join(
        f"<tr><th scope=row>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells + [""] * (len(records) - len(cells)))
        + "</tr>"
        for name, cells in rows.items()
    )
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"


def configuration(records: Sequence[Record]) -> str:
    """The fields in which the runs differ, and each configuration as a whole."""
    flat = [dict(_leaves(record.config)) for record in records]
    names = sorted({name for leaves in flat for name in leaves})
    differing = [name for name in names if len({json.dumps(leaves.get(name)) for leaves in flat}) > 1]
    parts = []
    if differing:
        head = "".join(f"<th scope=col>{html.escape(record.name)}</th>" for record in records)
        said = lambda leaves, name: html.escape(json.dumps(leaves[name])) if name in leaves else "-"
        cells = lambda name: "".join(f"<td>{said(leaves, name)}</td>" for leaves in flat)
        body = "".join(f"<tr><th scope=row>{html.escape(name)}</th>{cells(name)}</tr>" for name in differing)
        parts.append(
            '<div class="wide" tabindex="0" role="region" aria-label="Fields that differ">'
            f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    for record in records:
        text = html.escape(json.dumps(record.config, indent=2))
        name = html.escape(record.name)
        parts.append(f"<details><summary>config.json of {name}</summary><pre tabindex=0>{text}</pre></details>")
    return "".join(parts)


def _what(record: Record) -> dict[str, str]:
    config = record.config
    images = record.evaluation.get("train_images")
    return {
        "method": record.method,
        "encoder": config["encoder"]["type"],
        "data": config["data"]["source"] + (f", {images} images" if images else ""),
        "length": f"{config['epochs']} epochs of batches of {config['batch_size']}, {record.last_step} steps taken",
        "seed": str(config["seed"]),
    }


def _accuracies(record: Record) -> dict[str, str]:
    """Of the trained encoder, with what the best untrained feature reaches in brackets."""
    features = dict(record.evaluation.get("features", {}))
    trained = features.pop("trained", {})
    figures = {}
    for name, value in trained.items():
        text = f"{100 * value['mean']:.1f} %"
        spread = value.get("std")
        text += f" ± {100 * spread:.1f}" if spread is not None and math.isfinite(spread) else ""
        others = [f"{feature} {100 * of[name]['mean']:.1f}" for feature, of in features.items() if name in of]
        kind = name if name.startswith("kNN") else f"linear, {'all labels' if name == 'all' else name + ' a class'}"
        figures[kind] = text + (f" ({', '.join(others)})" if others else "")
    if not trained and (accuracy := record.last("knn_20")) is not None:
        figures["kNN 20"] = f"{100 * accuracy:.1f} %"
    return figures


def _signs(record: Record) -> dict[str, str]:
    named = {
        "loss": "last loss",
        "effective_rank": "effective rank, centred",
        "rank_me": "RankMe, uncentred",
        "total_variance": "total variance",
        "alignment": "alignment",
        "uniformity": "uniformity",
        "images_per_second": "images per second",
    }
    found = {title: record.last(name) for name, title in named.items()}
    signs = {title: f"{value:.4g}" for title, value in found.items() if value is not None}
    if width := record.last("spectrum"):
        signs["effective rank, centred"] += f" of {len(width)}"
    return signs


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    return [
        leaf
        for name, value in tree.items()
        for leaf in (_leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)])
    ]
