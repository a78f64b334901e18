"""The page of the evidence, docs/evidence.md, and its figures, from the results alone."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from . import claims, search, studies
from .claims import Kind, Measured, Verdict, interval, scale_of
from .grid import RAW, SUPERVISED, UNTRAINED
from .results import Results
from .statistics import mean_and_spread

HEAD = """# Evidence

What methods reach, measured by runs that anyone can repeat. This page and its figures are made from
the results in `docs/evidence/` by `python experiments/evidence.py tables`.

```
python experiments/evidence.py run --budget 8       what is not run yet, most informative first
python experiments/evidence.py repeat --random      one row again, bit for bit on the same machine
make evidence-check                                 eight methods again, against these figures
```

A row is one run on one core. Figures are means over seeds ± their standard deviation (n - 1), in
percent unless they say otherwise. Ranks and variances are those of the embeddings of augmented
images at the end of training. Seconds of training are those of the processor, with compilation and
kNN evaluations. Differences are in points and paired by seed; brackets are 95 % percentile
intervals of the bootstrap over seeds, from all resamples. With three to five seeds these intervals
are narrower than they should be. A claim holds if all its intervals are above zero, and fails if
one is below.

**Tuning.** Every method has the same {points} trials: the learning rate and one hyper-parameter of
its own (`OWN` in `experiments/evidence/search.py`) times {factors}.
A trial trains on four fifths of the training images and is judged on the rest, with seed {seed},
which no reported run has. The trials are in `evidence/*-search.jsonl`.
"""

MACHINES = "Measured on {machines} with {versions}."


@dataclasses.dataclass(frozen=True)
class Section:
    """The part of the page on one study."""

    study: str
    title: str
    text: str
    columns: tuple[str, ...]
    judged: str
    reference: Callable[[Kind], Kind | None]
    verdict: Callable[[Measured], Verdict] | None = None
    curves: bool = True


LABELS = ("1 label", "5 labels", "10 labels")
EMBEDDINGS = ("effective_rank", "total_variance")
SECTIONS = (
    Section(
        "digits",
        "(c) UniCLR is on par with or better than the state of the art: digits",
        "All methods on 1,437 training digits of 8 x 8, 120 epochs at batch 128; the ceiling is "
        "supervised training with the same encoder and views.",
        (*LABELS, "kNN 20", *EMBEDDINGS, "training_seconds"),
        "5 labels",
        lambda kind: ("simclr", ""),
        claims.on_par("5 labels"),
        curves=False,
    ),
    Section(
        "cifar10",
        "(c) UniCLR is on par with or better than the state of the art: CIFAR-10",
        "Twelve methods with an encoder that two cores train, 20 epochs at batch 256.",
        (*LABELS, "all", "kNN 200", *EMBEDDINGS, "training_seconds"),
        "kNN 200",
        lambda kind: ("simclr", ""),
        claims.on_par("kNN 200"),
    ),
    Section(
        "symmetry",
        "(a) The symmetric loss speeds convergence",
        "Digits; multiples of the default weight.",
        ("mean kNN", "epochs to 90", "epochs to 95", "epochs to 97", "5 labels", "kNN 20"),
        "epochs to 95",
        lambda kind: (kind[0], "weight x0"),
        claims.symmetry,
    ),
    Section(
        "collapse",
        "(b) SimTrace keeps from collapse without asymmetry",
        "Digits; predictor and target of SimTrace, learning rates, batch sizes. SimSiam without "
        "its predictor shows what collapse looks like.",
        (*EMBEDDINGS, "5 labels", "kNN 20"),
        "5 labels",
        lambda kind: ("sim_trace_plain", ""),
        claims.collapse,
    ),
    Section(
        "devices",
        "(d) Negatives and statistics of the global batch are better than those of each device",
        "Digits; 256 images on 8 virtual devices, 32 on each; norms of the network are global.",
        (*LABELS, "kNN 20", *EMBEDDINGS),
        "5 labels",
        lambda kind: (kind[0], "local"),
        claims.devices,
    ),
    Section(
        "gsg",
        "(e) Guided stop-gradient helps with small batches and without predictor",
        "Digits.",
        (*LABELS, "kNN 20", *EMBEDDINGS),
        "5 labels",
        lambda kind: (kind[0].removesuffix("_gsg"), kind[1]),
        claims.gsg,
    ),
    Section(
        "views",
        "(f) MV-DHEL gains by more views",
        "Digits.",
        (*LABELS, "kNN 20", *EMBEDDINGS, "training_seconds"),
        "5 labels",
        lambda kind: (kind[0], "2 views"),
        claims.views,
    ),
)


def write(results: Results, docs: pathlib.Path) -> None:
    """Writes the page, and a figure for each study that has results."""
    matplotlib.rcParams.update({"svg.hashsalt": "jaxclr", "svg.fonttype": "none"})
    factors = "(1, 1), (½, ½), (½, 2), (2, ½) and (2, 2)"
    parts = [HEAD.format(points=len(search.POINTS), factors=factors, seed=search.SEED)]
    for section in SECTIONS:
        measured = Measured(tuple(results.of(section.study).values()))
        parts.append(written(section, measured))
        if measured.records:
            figure = (curves if section.curves else dots)(section, measured)
            figure.savefig(docs / "evidence" / f"{section.study}.svg", metadata={"Date": None})
            plt.close(figure)
    (docs / "evidence.md").write_text("\n".join(parts))


def written(section: Section, measured: Measured) -> str:
    """A section of the page."""
    verdict = section.verdict(measured) if section.verdict else None
    heading = section.title + (f": {verdict.word}" if verdict else "")
    lines = [f"## {heading}", "", section.text, ""]
    if not measured.records:
        return "\n".join(lines)
    if verdict:
        lines += [f"**Verdict.** {verdict.sentence}", ""]
    missing = len(studies.STUDIES[section.study](lambda *_: {})) - len(measured.records)
    if missing:
        lines += [f"{missing} rows of this study are not run yet.", ""]
    lines += [*table(section, measured), ""]
    lines += [f"![{section.title}](evidence/{section.study}.svg)", ""]
    lines += [MACHINES.format(**_measured_with(measured.records)), ""]
    return "\n".join(lines)


def table(section: Section, measured: Measured) -> list[str]:
    """The lines of a table: a row for each method and setting, best first if they are methods."""
    names = {"training_seconds": "seconds of training", "total_variance": "variance"}
    shown = [names.get(name, name.replace("_", " ")) for name in section.columns]
    judged = f"difference in {section.judged}"
    lines = [
        "| " + " | ".join(["method", "setting", "seeds", *shown, judged]) + " |",
        "|---|---|" + "---:|" * (len(shown) + 2),
    ]
    for kind in order(section, measured):
        records = measured.of(kind)
        failed = sum("failed" in record for record in records)
        seeds = f"{len(records)}" + (f", {failed} diverged" if failed else "")
        cells = [cell(list(measured.values(kind, name).values()), name) for name in section.columns]
        reference = section.reference(kind)
        found = (
            measured.difference(kind, reference, section.judged)
            if reference and reference != kind
            else None
        )
        cells.append("" if found is None else interval(found, section.judged))
        lines.append("| " + " | ".join([kind[0], kind[1], seeds, *cells]) + " |")
    return lines


def order(section: Section, measured: Measured) -> list[Kind]:
    """Baselines and then methods by the figure that judges; settings in the order of the grid."""
    grid = dict.fromkeys(
        (row.method, row.setting) for row in studies.STUDIES[section.study](lambda *_: {})
    )
    kinds = [*(kind for kind in grid if kind in measured.kinds)]
    kinds += [kind for kind in measured.kinds if kind not in grid]
    if any(setting for _, setting in kinds):
        return kinds
    first = {RAW: 0, UNTRAINED: 1, SUPERVISED: 2}
    mean = lambda kind: np.mean(list(measured.values(kind, section.judged).values()) or [-1.0])
    return sorted(kinds, key=lambda kind: (first.get(kind[0], 3), -mean(kind)))


def cell(values: Sequence[float], name: str) -> str:
    """Mean ± spread, in percent unless the figure has another unit."""
    if not values:
        return "–"
    digits = 2 if name == "total_variance" else 1
    mean, spread = (scale_of(name) * value for value in mean_and_spread(values))
    return f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")


def dots(section: Section, measured: Measured) -> Any:
    """A figure of the means of all methods, with their spread."""
    kinds = list(reversed(order(section, measured)))
    figure, axes = plt.subplots(figsize=(6, 1 + 0.18 * len(kinds)), layout="constrained")
    for place, kind in enumerate(kinds):
        values = [100 * v for v in measured.values(kind, section.judged).values()]
        if values:
            axes.plot(values, [place] * len(values), ".", color="0.7", markersize=4)
            axes.plot(np.mean(values), place, "o", color="C0", markersize=4)
    axes.set_yticks(range(len(kinds)), [" ".join(filter(None, kind)) for kind in kinds], fontsize=7)
    axes.set_xlabel(f"accuracy in %, {section.judged} a class; each seed, and the mean")
    axes.grid(axis="x", alpha=0.3)
    return figure


def curves(section: Section, measured: Measured) -> Any:
    """A figure of kNN by epoch, and of the rank by step, a line for each method and setting."""
    k = "knn_200" if section.judged == "kNN 200" else "knn_20"
    kinds = [
        kind
        for kind in order(section, measured)
        if any(k in r["curves"] for r in measured.of(kind))
    ]
    figure, both = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(kinds)))
    for kind, color in zip(kinds, colors, strict=True):
        for axes, x, y, scale in (
            (both[0], "epoch", k, 100),
            (both[1], "step", "effective_rank", 1),
        ):
            lines = [r["curves"] for r in measured.of(kind) if r["curves"].get(y)]
            shortest = min(len(line[y]) for line in lines)
            mean = np.mean([line[y][:shortest] for line in lines], axis=0)
            label = " ".join(filter(None, kind))
            axes.plot(lines[0][x][:shortest], scale * mean, color=color, label=label, linewidth=1)
    for axes, x, y in (
        (both[0], "epoch", f"{k.replace('knn_', 'kNN ')}, %"),
        (both[1], "step", "effective rank"),
    ):
        axes.set(xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
    if kinds:
        figure.legend(*both[0].get_legend_handles_labels(), loc="outside right", fontsize=6)
    return figure


def _measured_with(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    versions = {", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in records}
    return {
        "machines": "; ".join(sorted({r["machine"] for r in records})),
        "versions": "; ".join(sorted(versions)),
    }
