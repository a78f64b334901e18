"""The embeddings: spectrum, plane of alignment and uniformity, positives against negatives."""

from collections.abc import Sequence

import numpy as np

from jaxclr.report.figures import Figure, Missing, Piece, missing
from jaxclr.report.plots import INK, Plot, line_of, thin
from jaxclr.report.records import Record

TIMES = 6  # spectra in a plot
SMALLEST = 1e-9  # eigenvalues below are drawn there: rounding noise


def spectra(record: Record) -> list[Piece]:
    """Eigenvalues over their rank, from the first to the last step."""
    steps, values = record.series("spectrum")
    if not steps:
        return missing(
            record, "spectrum", "not measured (observe_every is 0, or the run is too short)."
        )
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(TIMES, len(steps))).astype(int))
    strengths = np.linspace(1, 0.25, len(chosen))[::-1]  # a single one is strong
    color = line_of(record.number)["color"]
    first, last = values[0], values[-1]
    alt = (
        f"Spectrum of the embeddings of {record.name}, largest eigenvalue first, at {len(chosen)} "
        f"times from step {steps[0]} to {steps[-1]}. The largest holds "
        f"{first[0] / max(sum(first), 1e-30):.0%} of the variance at the start and "
        f"{last[0] / max(sum(last), 1e-30):.0%} at the end."
    )
    key = f"spectrum-{record.number}"
    with Plot(key, alt) as plot:
        for index, strength in zip(chosen, strengths, strict=True):
            heights = np.maximum(values[index], SMALLEST)
            ranks, label = np.arange(1, len(heights) + 1), f"step {steps[index]}"
            plot.axes.plot(ranks, heights, color=color, alpha=strength, label=label)
        plot.axes.set(yscale="log", xlabel="rank of the eigenvalue", ylabel="eigenvalue")
        plot.axes.legend()
    caption = (
        "Of the centered covariance of unit embeddings; earlier steps are paler. A cliff: few "
        "directions are used."
    )
    return [Figure(key, "Spectrum over time", plot.html, caption, record)]


def plane(records: Sequence[Record]) -> list[Piece]:
    """The path of every run in the plane of alignment and uniformity."""
    title = "Alignment and uniformity"
    paths = [
        (record, record.series("alignment")[1], record.series("uniformity")[1])
        for record in records
    ]
    paths = [path for path in paths if path[1]]
    if not paths:
        return [Missing(title, "not measured.")]
    said = "; ".join(
        f"{r.name} from ({x[0]:.2f}, {y[0]:.2f}) to ({x[-1]:.2f}, {y[-1]:.2f})" for r, x, y in paths
    )
    with Plot("plane", f"Path in the plane of alignment and uniformity: {said}.") as plot:
        for record, x, y in paths:
            line = line_of(record.number)
            x, y = thin(x, y, 150)
            plot.axes.plot(x, y, **line, alpha=0.7)
            ends = {"color": line["color"], "gid": line["gid"], "linestyle": "none"}
            plot.axes.plot(x[:1], y[:1], marker="o", fillstyle="none", **ends)
            plot.axes.plot(x[-1:], y[-1:], marker="o", **ends)
        plot.axes.set(
            xlabel="alignment (lower: views agree)", ylabel="uniformity (lower: spread out)"
        )
    caption = (
        "A ring at the start, a dot at the end. The lower left is best; a collapse goes to the "
        "upper left."
    )
    return [Figure("plane", title, plot.html, caption)]


def cosines(record: Record) -> list[Piece]:
    """Histograms of the diagonal of A and of the rest, at the first and the last step."""
    steps, positives = record.series("positive_cosines")
    _, negatives = record.series("negative_cosines")
    if not steps:
        return missing(
            record,
            "positives and negatives",
            "not measured (observe_every is 0, or the run is too short).",
        )
    edges = np.linspace(-1, 1, len(positives[0]) + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    mean = lambda shares: float(np.dot(shares, middle))
    alt = (
        f"Cosines in the affinity matrix of {record.name}: positives have a mean of "
        f"{mean(positives[0]):.2f} at the start and {mean(positives[-1]):.2f} at the end, "
        f"negatives {mean(negatives[0]):.2f} and {mean(negatives[-1]):.2f}."
    )
    key = f"cosines-{record.number}"
    with Plot(key, alt) as plot:
        color = line_of(record.number)["color"]
        plot.axes.stairs(
            positives[-1], edges, fill=True, color=color, alpha=0.7, label="positives, end"
        )
        plot.axes.stairs(
            negatives[-1], edges, fill=True, color=INK, alpha=0.3, label="negatives, end"
        )
        plot.axes.stairs(positives[0], edges, color=color, linestyle="--", label="positives, start")
        plot.axes.stairs(
            negatives[0], edges, color=INK, linestyle=":", alpha=0.6, label="negatives, start"
        )
        plot.axes.set(xlabel="cosine", ylabel="share", xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1))
        plot.axes.legend()
    caption = (
        "Predictions against targets of a batch. If both are near 1, the embeddings have collapsed."
    )
    return [Figure(key, "Positives against negatives", plot.html, caption, record)]
