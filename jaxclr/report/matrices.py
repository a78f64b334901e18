"""Matrices of the fixed examples: affinities over time, and confusions of classes."""

import collections
import html
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from jaxclr.evaluation.knn import knn_predict
from jaxclr.report.figures import Figure, Piece, missing
from jaxclr.report.plots import ALARM, Plot, line_of, text
from jaxclr.report.records import Record

NEIGHBORS, TEMPERATURE = 20, 0.07
MOST_CLASSES = 20  # in a confusion matrix; of more, the worst are listed


def affinities(record: Record) -> list[Piece]:
    """The affinity matrix of two views of the fixed examples, at each snapshot."""
    if not record.snapshots:
        return missing(record, "affinity matrix", "the run has no snapshots.")
    queries = len(next(iter(record.snapshots.values())).queries)
    labels = record.labels.queries if record.labels else np.full(queries, -1)
    pieces = []
    names = dict(zip(record.snapshots, _names(record), strict=True))
    for step, arrays in record.snapshots.items():
        rows, columns = arrays.rows, arrays.columns
        order = np.argsort(labels[: len(rows)], kind="stable")
        matrix = rows[order] @ columns[order].T
        off = matrix[~np.eye(len(matrix), dtype=bool)]
        alt = (
            f"Affinity matrix of {len(rows)} fixed examples of {record.name} at step {step}: the "
            f"diagonal has a mean cosine of {np.diag(matrix).mean():.2f}, the rest "
            f"{off.mean() if len(off) else 0:.2f}."
        )
        caption = "Red on the diagonal: views agree"
        if record.labeled:
            caption = f"Examples in the order of their classes. {caption}; in blocks: classes do"
        caption += "."
        key = f"affinity-{record.number}-{step}"
        with Plot(key, alt, size=(4.3, 3.4)) as plot:
            shown = plot.axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="none")
            plot.axes.set(xticks=[], yticks=[], xlabel="second view", ylabel="first view")
            plot.axes.grid(visible=False)
            _name_blocks(plot.axes, record, labels[order])
            bar = plot.figure.colorbar(shown, ax=plot.axes, shrink=0.8)
            bar.outline.set_visible(False)
        pieces.append(Figure(key, f"A {names[step]} (step {step})", plot.html, caption, record))
    return pieces


def _name_blocks(axes: Axes, record: Record, labels: np.ndarray) -> None:
    """Names of the classes beside their examples, which are in order."""
    classes = record.labels.classes if record.labels else ()
    if not record.labeled or len(classes) > MOST_CLASSES:
        return
    present, first, count = np.unique(labels, return_index=True, return_counts=True)
    names = [text(classes[label], 10) if label >= 0 else "" for label in present]
    axes.set_xticks(first + (count - 1) / 2, names, rotation=_rotation(names))
    axes.set_yticks(first + (count - 1) / 2, names)
    axes.tick_params(length=0)


def _rotation(names: Sequence[str]) -> int:
    """Degrees by which names below an axis are rotated, so that they do not overlap."""
    return 90 if max(map(len, names), default=0) > 2 else 0


def _names(record: Record) -> list[str]:
    last = len(record.snapshots) - 1
    return [
        "at the start" if i == 0 else "at the end" if i == last else "in the middle"
        for i in range(last + 1)
    ]


def predicted_classes(gallery: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Classes of the queries by their nearest neighbors in the gallery."""
    # The labels that occur are numbered anew: memory grows with them, not with all classes.
    present, numbers = np.unique(labels, return_inverse=True)
    settings = {"k": min(NEIGHBORS, len(gallery)), "temperature": TEMPERATURE}
    predicted = knn_predict(gallery, numbers, queries, classes=len(present), **settings)
    return present[np.asarray(predicted)]


def confusions(record: Record) -> list[Piece]:
    """Errors by class: a matrix for few classes, the worst of many."""
    if not record.end or not record.labels or not record.labeled:
        return missing(record, "errors by class", "there are no labels, or no snapshots.")
    classes, known = record.labels.classes, [y >= 0 for y in record.labels[:2]]
    gallery, queries = (x[rows] for x, rows in zip(record.end[:2], known, strict=True))
    taught, labels = (y[rows] for y, rows in zip(record.labels[:2], known, strict=True))
    predicted = predicted_classes(gallery, taught, queries)
    pairs = collections.Counter(zip(labels.tolist(), predicted.tolist(), strict=True))
    wrong = (labels != predicted).sum()
    key = f"confusion-{record.number}"
    held_out = " that were not trained on" * (record.evaluation.test_images is not None)
    caption = (
        f"{wrong} of {len(labels)} examples{held_out} are classified wrongly by their {NEIGHBORS} "
        f"nearest of {len(taught)} training examples."
    )
    errors = _table(pairs, classes)
    if len(classes) > MOST_CLASSES:
        return [Figure(key, "Errors by class", errors, caption, record)]
    totals = np.bincount(labels, minlength=len(classes))
    with Plot(key, f"Confusion matrix of {record.name}: {caption}", size=(3.9, 3.4)) as plot:
        names, edges = [text(name, 10) for name in classes], np.arange(len(classes) + 1) - 0.5
        plot.axes.set_xticks(range(len(classes)), names, rotation=_rotation(names))
        plot.axes.set_yticks(range(len(classes)), names)
        plot.axes.set(
            xlabel="predicted",
            ylabel="class",
            xlim=edges[[0, -1]],
            ylim=edges[[-1, 0]],
            aspect="equal",
        )
        plot.axes.grid(visible=False)
        plot.axes.tick_params(length=0)
        for (row, column), count in sorted(pairs.items()):
            color = line_of(record.number)["color"] if row == column else ALARM
            # An error in a hundred can be seen, and the number be read on all of a class.
            paint = {"color": color, "alpha": 0.1 + 0.4 * count / totals[row], "linewidth": 0}
            plot.axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **paint))
            plot.axes.text(column, row, str(count), ha="center", va="center", fontsize=8)
    return [Figure(key, "Errors by class", plot.html + errors, caption, record)]


def _table(pairs: Mapping[tuple[int, int], int], classes: Sequence[str]) -> str:
    """Error rates of the classes, the worst first; `pairs` counts (class, predicted)."""
    totals, others = collections.Counter(), collections.defaultdict(collections.Counter)
    for (label, predicted), count in sorted(pairs.items()):
        totals[label] += count
        if label != predicted:
            others[label][predicted] += count
    errors = {label: others[label].total() / total for label, total in totals.items()}
    rows = []
    for label in sorted(errors, key=lambda label: (-errors[label], label))[:MOST_CLASSES]:
        taken = [classes[predicted] for predicted, _ in others[label].most_common(1)]
        cells = (f"{errors[label]:.1%}", str(totals[label]), *(taken or ["-"]))
        rows.append(
            f"<tr><th scope=row>{html.escape(classes[label])}</th>"
            f"{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
        )
    titles = ("class", "errors", "examples", "most often predicted")
    head = f"<tr>{''.join(f'<th scope=col>{title}</th>' for title in titles)}</tr>"
    table = f"<table>{head}{''.join(rows)}</table>"
    return f"<details open><summary>Error rates</summary><div class=wide>{table}</div></details>"
