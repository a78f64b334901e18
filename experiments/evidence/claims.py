"""What the results of a study say of its claim."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxclr.evaluation.collapse import collapse_warning
from jaxclr.methods import METHODS

from .grid import BASELINES, SUPERVISED
from .statistics import Interval, paired
from .studies import UNICLR

Kind = tuple[str, str]  # method, setting

HOLDS, FAILS, UNDECIDED, NOT_RUN = "holds", "FAILS", "undecided", "not run yet"
WIDTH = 64  # of embeddings of digits


class Verdict(NamedTuple):
    """A word for the heading, and a sentence."""

    word: str
    sentence: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """The records of a study."""

    records: tuple[Mapping[str, Any], ...]

    @property
    def kinds(self) -> list[Kind]:
        """Methods and settings, in the order of the records."""
        return list(dict.fromkeys((r["method"], r["setting"]) for r in self.records))

    def of(self, kind: Kind) -> list[Mapping[str, Any]]:
        return [r for r in self.records if (r["method"], r["setting"]) == kind]

    def values(self, kind: Kind, figure: str) -> dict[int, float]:
        """A figure by seed, of the rows that have it."""
        found = {r["seed"]: figure_of(r, figure) for r in self.of(kind)}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def difference(self, one: Kind, other: Kind, figure: str) -> Interval | None:
        return paired(self.values(one, figure), self.values(other, figure))


def figure_of(record: Mapping[str, Any], name: str) -> float:
    """A figure of a record, or one computed from its curves; NaN without it.

    "mean kNN" is the mean of kNN 20 over the epochs; "epochs to 95" is the first epoch that was
    measured with kNN 20 of at least 95 %, and otherwise the last one.
    """
    curves = record["curves"]
    if name == "mean kNN":
        return float(np.mean(curves["knn_20"])) if curves.get("knn_20") else math.nan
    if name.startswith("epochs to "):
        if not curves.get("knn_20"):
            return math.nan
        reached = np.asarray(curves["knn_20"]) >= float(name.removeprefix("epochs to ")) / 100
        return float(curves["epoch"][int(np.argmax(reached)) if reached.any() else -1])
    if name.endswith("seconds"):
        return record.get(name, math.nan)
    return record["figures"].get(name, math.nan)


def symmetry(measured: Measured) -> Verdict:
    return _compared(
        measured,
        [
            ((method, "weight x1"), (method, "weight x0"))
            for method in ("sim_affinity", "sim_whitening")
        ],
        "mean kNN",
        "kNN 20 averaged over the epochs, the default weight less no symmetric loss",
    )


def collapse(measured: Measured) -> Verdict:
    plain = [r for r in measured.records if r["method"] == "sim_trace_plain"]
    if not plain:
        return Verdict(NOT_RUN, "Its rows are missing.")
    bad = [r for r in plain if "failed" in r or _collapsed(r["figures"])]
    sentence = (
        f"{len(bad)} of {len(plain)} runs of the plain SimTrace collapsed or diverged"
        + "".join(f"; {r['setting']}, seed {r['seed']}" for r in bad)
        + "."
    )
    return Verdict(FAILS if bad else HOLDS, sentence)


def _collapsed(figures: Mapping[str, float]) -> bool:
    rank, variance = figures["effective_rank"], figures["total_variance"]
    return bool(collapse_warning(effective_rank=rank, total_variance=variance, width=WIDTH))


def on_par(figure: str) -> Callable[[Measured], Verdict]:
    """The best of UniCLR's methods against the best of the others that use no labels."""

    def verdict(measured: Measured) -> Verdict:
        without_labels = [
            kind
            for kind in measured.kinds
            if kind[0] not in (*BASELINES, SUPERVISED)
            and not METHODS[kind[0]].needs_labels
            and measured.values(kind, figure)
        ]
        mean = lambda kind: float(np.mean(list(measured.values(kind, figure).values())))
        ours = [kind for kind in without_labels if kind[0] in UNICLR]
        others = [kind for kind in without_labels if kind[0] not in UNICLR]
        if not ours or not others:
            return Verdict(NOT_RUN, "The rows of one side or both are missing.")
        one, other = max(ours, key=mean), max(others, key=mean)
        found = measured.difference(one, other, figure)
        sentence = f"{figure}: {one[0]} {100 * mean(one):.1f}, {other[0]} {100 * mean(other):.1f}"
        if found is None or found.seeds < 2:
            return Verdict(UNDECIDED, f"{sentence}; fewer than two seeds of both.")
        word = FAILS if found.sign < 0 else HOLDS
        return Verdict(word, f"{sentence}; difference {interval(found, figure)}.")

    return verdict


def devices(measured: Measured) -> Verdict:
    methods = dict.fromkeys(method for method, _ in measured.kinds)
    pairs = [((method, "global"), (method, "local")) for method in methods]
    return _compared(measured, pairs, "5 labels", "5 labels, global less local")


def gsg(measured: Measured) -> Verdict:
    pairs = [(kind, (kind[0][:-4], kind[1])) for kind in measured.kinds if kind[0].endswith("_gsg")]
    return _compared(measured, pairs, "5 labels", "5 labels, with less without guidance")


def views(measured: Measured) -> Verdict:
    pairs = [(("mv_dhel", "6 views"), ("mv_dhel", "2 views"))]
    return _compared(measured, pairs, "5 labels", "5 labels, 6 views less 2")


def _compared(
    measured: Measured, pairs: Iterable[tuple[Kind, Kind]], figure: str, what: str
) -> Verdict:
    """Holds if every difference is above zero, fails if one is below."""
    found = {
        one: difference
        for one, other in pairs
        if (difference := measured.difference(one, other, figure)) is not None
    }
    if not found:
        return Verdict(NOT_RUN, "The rows of one side or both are missing.")
    signs = [difference.sign for difference in found.values()]
    word = FAILS if min(signs) < 0 else HOLDS if min(signs) > 0 else UNDECIDED
    parts = [
        f"{' '.join(filter(None, kind))} {interval(difference, figure)}"
        for kind, difference in found.items()
    ]
    return Verdict(word, f"{what}: {', '.join(parts)}.")


def scale_of(figure: str) -> int:
    """What a figure is multiplied by to be shown: shares are shown in percent."""
    counts = ("epochs to", "effective_rank", "total_variance")
    return 1 if figure.startswith(counts) or figure.endswith("seconds") else 100


def interval(found: Interval, figure: str) -> str:
    """A difference and its interval, in points or in the figure's own unit."""
    mean, low, high = (scale_of(figure) * value for value in found[:3])
    return f"{mean:+.1f}" + ("" if found.seeds < 2 else f" [{low:+.1f}, {high:+.1f}]")
