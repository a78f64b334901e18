"""Memory of a loss on each device, and its collectives, as the compiler reports them.

    python experiments/benchmarks/memory.py [--short] [--out FILE.json]

Nothing runs. Value and gradient of the losses on virtual CPU devices; logits are formed at once
(dense), a tile at a time from gathered columns (streamed), or a tile at a time from columns that
circulate (ring). Temporaries are what a device allocates besides arguments and results.
Collectives are counted in the lowered program; those in the body of a loop count once, though those
of the ring run once for each device.
"""

import os

DEVICES = 8
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flag = f"--xla_force_host_platform_device_count={DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
os.environ["JAX_PLATFORMS"] = "cpu"

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import rich.table
import tyro
from jax.sharding import PartitionSpec as P
from measure import Output, figure, machine, mebibytes, number, on_devices, verdict

from jaxclr import losses

Array = jax.Array

LOSSES = {
    "info_nce": losses.info_nce,
    "nt_xent": losses.nt_xent,
    "siglip": losses.siglip,
}
IMPLEMENTATIONS = ("dense", "streamed", "ring")
WIDTH = 256
COLLECTIVE = re.compile(
    r"stablehlo\.(all_gather|all_reduce|all_to_all|collective_permute|reduce_scatter)\b"
)
# Most MiB on a device: loss, implementation, B, D, devices.
BARS_MIB = {
    (loss, implementation, 32768, 256, 8): most
    for loss in ("info_nce", "siglip")
    for implementation, most in (("streamed", 90), ("ring", 40))
}


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Memory of a loss on each device, and its collectives, as the compiler reports them."""

    short: bool = False
    """Few batches only."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Batches B of all devices together, and numbers of devices."""

    rows: tuple[int, ...] = (4096, 8192, 16384, 32768, 65536)
    devices: tuple[int, ...] = (1, 2, DEVICES)


SHORT = Sizes(rows=(4096, 32768), devices=(1, DEVICES))


def main(options: Options) -> None:
    options.check_plots()
    record = measure(SHORT if options.short else Sizes())
    options.tell(record, tables(record), plot)


def measure(sizes: Sizes) -> dict[str, Any]:
    """All figures; a result is a loss, an implementation, a batch, devices and their figures."""
    results = [
        analyze(loss, implementation, rows, devices)
        for loss in LOSSES
        for devices in sizes.devices
        for implementation in IMPLEMENTATIONS
        for rows in sizes.rows
    ]
    return {"machine": machine(), "results": results}


def analyze(name: str, implementation: str, rows: int, devices: int) -> dict[str, Any]:
    """Figures of the compiler for a loss and its gradient."""
    loss = functools.partial(
        LOSSES[name], temperature=0.1, implementation=implementation, axis_name="batch"
    )

    def step(q: Array, k: Array) -> tuple[Array, tuple[Array, Array]]:
        share, gradients = jax.value_and_grad(loss, (0, 1))(q, k)
        return jax.lax.pmean(share, "batch"), gradients

    mesh = jax.make_mesh(
        (devices,),
        ("batch",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:devices],
    )
    views = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)
    lowered = on_devices(step, mesh, P("batch"), (P(), P("batch"))).lower(views, views)
    return {
        "loss": name,
        "implementation": implementation,
        "rows": rows,
        "width": WIDTH,
        "devices": devices,
        "temporary_mib": mebibytes(lowered.compile()),
        "collectives": dict(
            sorted(collections.Counter(COLLECTIVE.findall(lowered.as_text())).items())
        ),
    }


def tables(record: Mapping[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for result in record["results"]:
        groups.setdefault((result["loss"], result["devices"]), []).append(result)
    return [
        *(memory_table(*key, results) for key, results in groups.items()),
        collectives_table(record["results"]),
    ]


def memory_table(loss: str, devices: int, results: list[Mapping[str, Any]]) -> rich.table.Table:
    table = rich.table.Table(
        f"{loss}, D = {WIDTH}, devices: {devices}", *IMPLEMENTATIONS, title="MiB on each device"
    )
    found = {
        (result["implementation"], result["rows"]): result["temporary_mib"] for result in results
    }
    for rows in dict.fromkeys(result["rows"] for result in results):
        cells = []
        for implementation in IMPLEMENTATIONS:
            value = found[implementation, rows]
            most = BARS_MIB.get((loss, implementation, rows, WIDTH, devices))
            cells.append(number(value) + (f"; {verdict(value, most=most)}" if most else ""))
        table.add_row(f"B = {rows}", *cells)
    return table


def collectives_table(results: list[Mapping[str, Any]]) -> rich.table.Table:
    """On the most devices; they do not depend on the batch."""
    devices = max(result["devices"] for result in results)
    table = rich.table.Table(f"collectives, devices: {devices}", "implementation", "in the program")
    counts = {
        (result["loss"], result["implementation"]): result["collectives"]
        for result in results
        if result["devices"] == devices
    }
    for key, collectives in counts.items():
        table.add_row(*key, ", ".join(f"{count} {name}" for name, count in collectives.items()))
    return table


def plot(record: Mapping[str, Any]) -> Any:
    """Memory against the batch: a panel per loss, a line per implementation and device count."""
    lines: dict[str, dict[tuple[str, int], list[tuple[int, float]]]] = {}
    for result in record["results"]:
        line = lines.setdefault(result["loss"], {}).setdefault(
            (result["implementation"], result["devices"]), []
        )
        line.append((result["rows"], result["temporary_mib"]))
    drawn = figure(len(lines))
    styles = {"dense": "-", "streamed": "--", "ring": ":"}
    devices = sorted({result["devices"] for result in record["results"]})
    for axes, (loss, found) in zip(drawn.axes, lines.items(), strict=True):
        for (implementation, count), points in found.items():
            look = {"linestyle": styles[implementation], "color": f"C{devices.index(count)}"}
            axes.loglog(
                *zip(*points, strict=True),
                marker="o",
                label=f"{implementation}, {count}",
                base=2,
                **look,
            )
        axes.set(title=loss, xlabel="batch size", ylabel="MiB of temporaries on a device")
        axes.set_yscale("log", base=10)
    named = drawn.axes[0].get_legend_handles_labels()
    drawn.legend(*named, loc="outside right center", title="implementation, devices")
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
