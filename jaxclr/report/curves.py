"""Curves over the steps, all runs in one plot each."""

import math
from collections.abc import Sequence

from jaxclr.report.figures import Figure, Missing, Piece, drawn
from jaxclr.report.plots import Plot, line_of, thin
from jaxclr.report.records import Record

# Name in metrics.jsonl, title, caption.
_CURVES = (
    ("loss", "Loss", "Of the objective; the losses of different objectives are not comparable."),
    ("knn_20", "kNN accuracy", "On the test split during training, 20 neighbors."),
    (
        "effective_rank",
        "Effective rank",
        "Entropy, as a number of directions, of the centered covariance of unit embeddings.",
    ),
    (
        "rank_me",
        "RankMe",
        "Entropy, as a number of directions, of the singular values of the embeddings, neither "
        "centered nor normalized.",
    ),
    ("total_variance", "Total variance", "Of unit embeddings: 0 for a single point, at most 1."),
    (
        "collapse_auc",
        "Collapse AUC",
        "Mean share of the largest singular values: 1/2 for an isotropic cloud, 1 for a line.",
    ),
    (
        "asymmetry",
        "Asymmetry of A",
        "Norm of A minus its transpose, over the norm of A; predictions against targets.",
    ),
    ("learning_rate", "Learning rate", ""),
    ("momentum", "Momentum of the target network", "Share of the average that a step keeps."),
    ("grad_norm", "Gradient norm", "Before clipping."),
    ("update_norm", "Update norm", "Of what a step adds to the parameters."),
    ("images_per_second", "Examples per second", "Of the steps alone."),
)


def curves(records: Sequence[Record]) -> list[Piece]:
    """A plot for each metric that a run logs over its steps."""
    return [
        piece
        for name, title, caption in _CURVES
        for piece in drawn(title, _curve, records, name, title, caption)
    ]


def _curve(records: Sequence[Record], name: str, title: str, caption: str) -> list[Piece]:
    series = [(record, *record.series(name)) for record in records]
    series = [(record, steps, values) for record, steps, values in series if steps]
    if not series:
        where = "these runs" if len(records) > 1 else "this run"
        return [Missing(title, f"not measured in {where}.")]
    said = "; ".join(
        f"{record.name} from {values[0]:.4g} to {values[-1]:.4g}" for record, _, values in series
    )
    with Plot(f"curve-{name}", f"{title} over the steps: {said}.") as plot:
        for record, steps, values in series:
            marker = {"marker": "o", "markersize": 3} if len(steps) < 5 else {}
            plot.axes.plot(*thin(steps, values), **line_of(record.number), **marker)
            for step, _ in record.config.extensions:
                plot.axes.axvline(step, **{**line_of(record.number), "linestyle": (0, (1, 2))})
        plot.axes.set_xlabel("step")
        if name == "grad_norm" and _decades(series) > 2:
            plot.axes.set_yscale("log")
        if name == "knn_20":
            low, high = plot.axes.get_ylim()
            room = max(0.05 - (high - low), 0) / 2  # so that a few examples do not fill the axis
            plot.axes.set_ylim(max(low - room, 0), min(high + room, 1))
            plot.axes.yaxis.set_major_formatter("{x:.0%}")
    if any(record.config.extensions for record, _, _ in series):
        caption = f"{caption} Dotted: the run was extended here.".strip()
    return [Figure(f"curve-{name}", title, plot.html, caption)]


def _decades(series: Sequence[tuple[Record, Sequence[int], Sequence[float]]]) -> float:
    """How many powers of ten the values span; 0 if one is not above zero."""
    values = [value for _, _, some in series for value in some]
    return math.log10(max(values) / min(values)) if min(values) > 0 else 0.0
