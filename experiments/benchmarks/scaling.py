"""Weak scaling of the training step on TPU pods: the bytes that each chip sends.

Every collective of the compiled program is counted, in loops as often as they run, with the bytes
that leave a chip in a ring algorithm, which are the fewest possible: 2 (n - 1) / n of the array of
an all-reduce, (n - 1) / n of the whole array of an all-gather or a reduce-scatter, and the array of
a collective-permute.

Times are computed, not measured: those bytes over the bandwidth of the links, and FLOPs over the
peak. At 40% of the peak, the share of communication is 0.4 times as large. The latency of a call,
taken as a microsecond a hop, does not depend on the batch and is reported separately. No overlap of
communication and computation is assumed.
"""

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.table
from lowered import Traffic, compiled_need, need_of, shares, tally
from measure import figure
from programs import loss_program, mesh_of, pod, recipe_of, step_program

from jaxclr.runs.experiments import load_experiment

SHARE = 0.1  # of compute, that communication reaches
HOP_SECONDS = 1e-6


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation of TPUs, in the words of its data sheet.

    Attributes:
      flops: bfloat16, per second at the peak.
      link: bytes per second of one link, one way: the bidirectional bandwidth of the data sheet
        over twice the links.
      wraps: the length from which on an axis of a pod is a ring, and not a line.
    """

    flops: float
    link: float
    wraps: int


CHIPS = {"v5e": Chip(197e12, 400e9 / 8, 16), "v5p": Chip(459e12, 1200e9 / 12, 4)}
TOPOLOGIES = (
    "v5e:2x4",
    "v5e:16x16",
    "v5p:8x16x16",
)  # 8 chips, 256, which is all that a v5e pod has, and 2048

_SHAPE = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_COLLECTIVE = re.compile(rf" = (?P<shapes>.*?) (?P<kind>{_KINDS})(?P<start>-start)?\(")
_GROUPS = re.compile(r"replica_groups=(?:\{\{([\d,]+)\}(,)?|\[(\d+),(\d+)\]<=)")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|condition|body|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


def compiled_traffic(text: str) -> dict[str, Traffic]:
    """Collectives of one chip in a compiled program, by kind: calls, and bytes as in `tally`.

    Those over groups of g chips are of the kind "all_gather/g".

    Args:
      text: the program, as `jax.stages.Compiled.as_text` tells it.

    Raises:
      ValueError: a loop with a collective in it runs no constant number of times.
    """
    computations, entry = _computations(text)
    # An asynchronous one appears in every fusion that it overlaps, and is counted where it starts.
    started = set(re.findall(r"%?async-collective-start[\w.\-]* = .* calls=%?([\w.\-]+)", text))

    @functools.cache
    def of(name: str) -> dict[str, Traffic]:
        counted: dict[str, Traffic] = {}
        for line in computations[name]:
            if found := _COLLECTIVE.search(line):
                if "chain_id=" not in line or name in started:
                    group, alone = _group(line)
                    kind = found["kind"].replace("-", "_") + ("" if alone else f"/{group}")
                    _add(counted, {kind: Traffic(1, _carried(line, found, group))}, 1)
                continue  # what it calls adds two numbers
            called = _CALLED.findall(line)
            called += [
                part.strip(" %") for group in _BRANCHES.findall(line) for part in group.split(",")
            ]
            inner: dict[str, Traffic] = {}
            for callee in called:
                _add(inner, of(callee), 1)
            if inner:
                _add(counted, inner, _trips(computations, line) if " while(" in line else 1)
        return counted

    return of(entry)


def sent(traffic: Mapping[str, Traffic], chips: int) -> float:
    """Bytes that leave a chip; collectives are over all chips unless their kind has a group."""

    def factor(kind: str) -> float:
        kind, _, group = kind.partition("/")
        part = 1 - 1 / int(group or chips)
        return {"all_reduce": 2 * part, "collective_permute": 1.0}.get(kind, part)

    return sum(factor(kind) * of.bytes for kind, of in traffic.items())


def measure(
    experiment: pathlib.Path,
    topologies: Sequence[str],
    batch: int,
    shape: tuple[int, int, int],
    console: rich.console.Console,
) -> list[dict[str, Any]]:
    """A row for each pod: the whole step, and the batch at which communication takes SHARE of it.

    Args:
      experiment: whose step.
      topologies: of the pods, of generations in `CHIPS`.
      batch: images of a chip.
      shape: of a source image, H W C.
      console: for a word about each compilation.
    """
    config = load_experiment(experiment)
    rows = []
    for topology in topologies:
        mesh = mesh_of(pod(topology))
        recipe = recipe_of(config, global_batch=batch * mesh.size, channels=shape[-1])
        step, loss = (make(recipe, mesh, batch, shape) for make in (step_program, loss_program))
        need, text = compiled_need(step)
        traffic = compiled_traffic(text)
        asked = tally(step).collectives
        # The compiler may gather by an all-reduce: the lowered program has the constant part.
        fixed = sent({"all_reduce": asked["all_reduce"]}, mesh.size)
        row = {
            "topology": topology,
            "chips": mesh.size,
            "images": batch,
            "need": need,
            "flops": shares(need, need_of(loss), tally(loss).matmul_flops)["flops"],
            "collectives": traffic,
            "calls": sum(of.calls for of in traffic.values()),
            "sent": sent(traffic, mesh.size),
            "sent_before_the_compiler": sent(asked, mesh.size),
            "sent_per_image": (sent(traffic, mesh.size) - fixed) / batch,
        }
        row |= times(row)
        rows.append(
            row | {"tenth": batch_at_share(row), "tenth_with_hops": batch_at_share(row, hops=True)}
        )
        console.log(
            f"{topology}: {row['sent'] / 1e6:.0f} MB a chip, compiled in {need.seconds:.0f} s"
        )
    return rows


def times(row: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a step: of computation at the peak, of the links, and of hops."""
    generation, _, sides = row["topology"].partition(":")
    chip, sides = CHIPS[generation], [int(side) for side in sides.split("x")]
    # On a ring of chips each sends both ways, at the end of a line one way.
    links = sum(2 if side >= chip.wraps else 1 for side in sides)
    across = sum(side // 2 if side >= chip.wraps else side - 1 for side in sides)
    return {
        "compute_seconds": row["flops"] / chip.flops,
        "link_seconds": row["sent"] / (links * chip.link),
        "hop_seconds": HOP_SECONDS
        * sum(
            (1 if kind == "collective_permute" else across) * of.calls
            for kind, of in row["collectives"].items()
        ),
    }


def batch_at_share(row: Mapping[str, Any], *, hops: bool = False) -> float:
    """Images of a chip at which communication takes SHARE of computation at the peak.

    Infinite if it always takes more. Computation is proportional to the batch, and so are the
    embeddings that are sent; gradients, statistics and Gram matrices are not.
    """
    grows = row["link_seconds"] * row["sent_per_image"] / row["sent"]
    fixed = row["link_seconds"] - grows * row["images"] + hops * row["hop_seconds"]
    spare = SHARE * row["compute_seconds"] / row["images"] - grows
    return fixed / spare if spare > 0 else math.inf


def table(rows: Sequence[Mapping[str, Any]]) -> rich.table.Table:
    """The rows for a person to read."""
    shown = rich.table.Table(
        "pod",
        "chips",
        "MB sent",
        "before the compiler",
        "of it per image",
        "calls",
        "TFLOP",
        "ms: compute, links, hops",
        f"images where links are {SHARE:.0%} of compute",
        "and with hops",
        title=f"a step of {rows[0]['images']} images a chip; all figures are of one chip",
    )
    told = lambda images: "never" if math.isinf(images) else f"{images:,.0f}"
    for row in rows:
        seconds = (row[f"{part}_seconds"] for part in ("compute", "link", "hop"))
        shown.add_row(
            row["topology"],
            str(row["chips"]),
            f"{row['sent'] / 1e6:,.0f}",
            f"{row['sent_before_the_compiler'] / 1e6:,.0f}",
            f"{row['sent_per_image'] / 1e6:.3f}",
            str(row["calls"]),
            f"{row['flops'] / 1e12:.2f}",
            ", ".join(f"{1e3 * value:.2f}" for value in seconds),
            told(row["tenth"]),
            told(row["tenth_with_hops"]),
        )
    return shown


def plot(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Bytes that a chip sends in a step, and their time relative to computation, by chips."""
    drawn = figure(2)
    amounts, times_ = drawn.axes
    for kind in CHIPS:
        some = [row for row in rows if row["topology"].startswith(kind)]
        chips = [row["chips"] for row in some]
        amounts.plot(chips, [row["sent"] / 1e6 for row in some], marker="o", label=kind)
        for part, style in (("link", "-"), ("hop", ":")):
            values = [row[f"{part}_seconds"] / row["compute_seconds"] for row in some]
            times_.plot(chips, values, style, marker="o", label=f"{kind}, {part}s")
    times_.axhline(SHARE, color="gray", linestyle="--")
    images = rows[0]["images"]
    amounts.set(ylabel=f"MB that a chip sends in a step of {images} images", ylim=(0, None))
    times_.set(ylabel="share of computation at the peak", yscale="log")
    for panel in drawn.axes:
        panel.set_xscale("log", base=2)
        panel.set_xlabel("chips")
        panel.legend()
    return drawn


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by its name, and the name of the first to run."""
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if line.endswith("{") and (found := re.match(r"(ENTRY )?%?([\w.\-]+) \(", line)):
            name = found[2]
            computations[name] = []
            entry = name if found[1] else entry
        elif name and " = " in line:
            computations[name].append(line)
    return computations, entry


def _trips(computations: Mapping[str, list[str]], loop: str) -> int:
    """How often a loop that counts from 0 to a constant runs."""
    name = re.search(r"condition=%?([\w.\-]+)", loop)[1]
    bounds = [
        found[1]
        for line in computations[name]
        if (found := re.search(r" s32\[\]\S* constant\((\d+)\)", line))
    ]
    if len(bounds) != 1 or not any("direction=LT" in line for line in computations[name]):
        raise ValueError(
            f"A loop with a collective in it runs until {name}, which compares with no constant."
        )
    return int(bounds[0])


def _group(line: str) -> tuple[int, bool]:
    """The number of chips of a collective's groups, and whether there is one group only."""
    if not (listed := _GROUPS.search(line)):
        return 1, True
    if listed[1]:
        return listed[1].count(",") + 1, not listed[2]
    return int(listed[4]), listed[3] == "1"


def _carried(line: str, found: re.Match, group: int) -> int:
    """Bytes of a collective over groups of a size: the larger of its input and its output."""
    sizes = [
        math.prod(map(int, filter(None, shape.split(",")))) * max(1, int(bits or 8) // 8)
        for _, bits, shape in _SHAPE.findall(found["shapes"])
    ]
    if found["kind"] == "collective-permute":
        return sizes[0]  # a start lists its operand, its result and two semaphores
    if found["kind"] == "all-gather" and found["start"]:
        return sum(sizes) * group // (group + 1)  # operands and results
    return sum(sizes) * (group if found["kind"] == "reduce-scatter" else 1)


def _add(counted: dict[str, Traffic], more: Mapping[str, Traffic], times: int) -> None:
    for kind, of in more.items():
        before = counted.get(kind, Traffic())
        counted[kind] = Traffic(before.calls + times * of.calls, before.bytes + times * of.bytes)
