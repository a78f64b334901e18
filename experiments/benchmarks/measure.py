"""Parts of all benchmarks: alternating timing, memory as the compiler reports it, and tables."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
from jax.sharding import Mesh

Plot = Callable[[Mapping[str, Any]], Any]  # of a record, as a matplotlib figure

RUN_SECONDS = 0.03  # a run repeats calls that are faster than this


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        median, low, high = (number(value) for value in dataclasses.astuple(self))
        return f"{median} ({low} to {high})"


def spread(values: Iterable[float]) -> Spread:
    """Median and quartiles of at least one value."""
    values = list(values)
    inclusive = functools.partial(statistics.quantiles, n=4, method="inclusive")
    low, median, high = inclusive(values) if len(values) > 1 else 3 * values
    return Spread(median, low, high)


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def verdict(value: float, *, least: float = -math.inf, most: float = math.inf) -> str:
    """The bar, and whether the value meets it."""
    bar = f"at most {most}" if math.isinf(least) else f"at least {least}"
    return f"{bar}: {'met' if least <= value <= most else 'missed'}"


def machine() -> dict[str, Any]:
    """The hardware and software of the measurement."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else ())
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def milliseconds(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Wall time of each call after a warm-up, by name.

    The runs of the calls alternate.
    """
    often = {}
    for name, call in calls.items():
        run(call, 1)
        often[name] = max(1, math.ceil(1e3 * RUN_SECONDS / run(call, 1)))
    rounds = [
        {name: run(call, often[name]) for name, call in calls.items()} for _ in range(repeats)
    ]
    return {name: [round_[name] for round_ in rounds] for name in calls}


def run(call: Callable[[], Any], times: int, *, wait_for_each: bool = True) -> float:
    """Milliseconds of a call, the mean of several in a row.

    Each waits for the one before, or all may overlap.
    """
    start = time.perf_counter()
    for _ in range(times):
        result = call()
        if wait_for_each:
            jax.block_until_ready(result)
    jax.block_until_ready(result)
    return 1e3 * (time.perf_counter() - start) / times


def on_devices(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    """A function of one device's share, jitted over the mesh."""
    return jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    )


def mebibytes(compiled: jax.stages.Compiled) -> float:
    """Memory of a compiled function on a device besides its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def resident_mib(of: str = "VmRSS", process: int | str = "self") -> float:
    """Memory that a process holds now (VmRSS), or the most that it has held (VmHWM)."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(re.search(rf"{of}:\s+(\d+)", status)[1]) / 1024


def figure(columns: int) -> Any:
    """A matplotlib figure with so many plots side by side.

    Raises:
      SystemExit: there is no matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit(
            "--out draws a plot with matplotlib: run `pip install matplotlib`, or leave out --out."
        )
    drawn = Figure(figsize=(5 * columns, 4.5), layout="constrained")
    drawn.subplots(1, columns)
    return drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """The option that all benchmarks have."""

    out: pathlib.Path | None = None
    """File for the figures, as JSON; a plot, where there is one, is the .png beside it."""

    def check_plots(self) -> None:
        """Refuses at once, and not after minutes of measuring, what `figure` would refuse."""
        if self.out is not None:
            figure(1)

    def tell(
        self,
        record: Mapping[str, Any],
        tables: Iterable[rich.table.Table],
        plot: Plot | None = None,
    ) -> None:
        """Prints machine and tables of a record; writes record and plot if a file is given."""
        console = rich.console.Console()
        machine = rich.table.Table("machine", "", title_justify="left")
        for name, value in record["machine"].items():
            machine.add_row(name, str(value))
        for table in (machine, *tables):
            console.print(table)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(json.dumps(record, indent=2, default=_plain) + "\n")
            if plot is not None:
                plot(record).savefig(self.out.with_suffix(".png"), dpi=150)


def _plain(value: Any) -> Any:
    """What JSON takes in the place of a dataclass, a number of NumPy's or a path."""
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return value.item() if isinstance(value, np.generic) else str(value)
