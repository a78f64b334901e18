"""Time and memory of the losses, value and gradient, against other implementations.

    python experiments/benchmarks/loss.py [--short] [--out FILE.json]

Each table is one loss on one batch, jaxclr first. Runs of the implementations alternate, so that
all see the same load, and ratios are taken run by run. All must give the same value.

- info_nce, streamed and dense, against a few lines of jax.numpy; and by tile size.
- nt_xent against `optax.losses.ntxent`, which builds [2B, 2B, D], and against eager PyTorch if it
  is installed.
- clip and siglip, streamed and dense, against a few lines of jax.numpy; clip also against info_nce
  in both directions.
- symmetric_loss from Gram matrices against its definition.
- mmcr, frossl, tico, lejepa and others against their definitions in jax.numpy (plain.py), with all
  rows, pairs or knots at once.
- sim_trace on large batches, each in its own process; peak memory is the operating system's figure.
- info_nce of a million rows: compiled, not run.
- On an accelerator: info_nce on large batches, as a share of the rate of a matrix product.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain
import rich.table
import tyro
from measure import Output, figure, machine, mebibytes, milliseconds, number, spread, verdict

from jaxclr import losses
from jaxclr.affinity import positives, row_logsumexp, unit_rows

Array = jax.Array
Loss = Callable[[Array, Array], Array]

TEMPERATURE = plain.TEMPERATURE
OPTAX_ROWS = 1024  # beyond, its [2B, 2B, D] fits in few machines
PYTORCH = "eager PyTorch"
OPERATIONS = 8  # per B x B x D: one matrix product forward and three backward, 2 operations each

# Least ratios of time and of temporaries, over those of jaxclr: loss, B, implementation.
BARS = {
    ("info_nce", 8192, "plain jnp"): {"slower": 1.25, "larger": 20},
    ("nt_xent", 4096, PYTORCH): {"slower": 4},
    ("nt_xent", 1024, "optax"): {"slower": 500},
    ("symmetric_loss", 4096, "dense"): {"slower": 30},
}
PEAK_BAR_MIB = 4096  # of a process that runs sim_trace
MILLION_BAR_MIB = 1024


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Time and memory of the losses, value and gradient, against other implementations."""

    short: bool = False
    """Small batches only."""

    repeats: int = 7
    """Runs of each."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Batches B of each loss, and the width D of embeddings."""

    info_nce: tuple[int, ...] = (512, 1024, 4096, 8192)
    tiles: tuple[int, ...] = (8192,)
    nt_xent: tuple[int, ...] = (256, 1024, 4096)
    clip: tuple[int, ...] = (1024, 4096)
    siglip: tuple[int, ...] = (1024, 4096)
    symmetric_loss: tuple[int, ...] = (1024, 4096)
    others: tuple[int, ...] = (1024,)  # of `plain.PAIRS`
    width: int = 128
    sim_trace: tuple[int, ...] = (4096, 16384, 65536, 262144)
    sim_trace_width: int = 256
    accelerator: tuple[int, ...] = (4096, 16384, 65536, 262144)
    accelerator_widths: tuple[int, ...] = (128, 256, 512, 1024)


SHORT = Sizes(
    info_nce=(512, 2048),
    tiles=(2048,),
    nt_xent=(256, 1024),
    clip=(1024,),
    siglip=(1024,),
    symmetric_loss=(1024, 4096),
    sim_trace=(4096, 16384),
    accelerator=(4096, 16384),
    accelerator_widths=(128,),
)


def main(options: Options) -> None:
    options.check_plots()
    record = measure(SHORT if options.short else Sizes(), options.repeats)
    options.tell(record, tables(record), plot)


def measure(sizes: Sizes, repeats: int) -> dict[str, Any]:
    """All figures; a result is a loss, an implementation, a batch and their figures."""
    load = [round(value, 2) for value in os.getloadavg()]
    # Measured first: a child process inherits the memory of this one.
    results = [sim_trace_alone(rows, sizes.sim_trace_width, repeats) for rows in sizes.sim_trace]
    for loss in LOSSES:
        for rows in sizes.others if loss in plain.PAIRS else getattr(sizes, loss):
            results += compare(loss, rows, sizes.width, repeats)
    if jax.default_backend() != "cpu":
        for dtype in ("float32", "bfloat16"):
            results += on_accelerator(sizes, dtype, repeats)
    return {
        "machine": {**machine(), "optax": optax.__version__, "load before": load},
        "repeats": repeats,
        "results": results,
        "million_rows_temporary_mib": million_rows(),
    }


def info_nce_by_tile(q: Array, k: Array, *, tile: int) -> Array:
    q, k = unit_rows(q) / TEMPERATURE, unit_rows(k)
    return jnp.mean(row_logsumexp(q, k, implementation="streamed", tile=tile) - positives(q, k))


def optax_nt_xent(z1: Array, z2: Array) -> Array:
    images = jnp.arange(len(z1))
    labels = jnp.concatenate([images, images])
    return optax.losses.ntxent(jnp.concatenate([z1, z2]), labels, TEMPERATURE)


def pytorch_nt_xent(z1: Array, z2: Array) -> tuple[str, Callable[[], Any] | None]:
    """PyTorch's version and a call of value and gradient; without it, "no PyTorch" and None."""
    try:
        import torch
    except ImportError:
        return "no PyTorch", None
    torch.set_num_threads(os.cpu_count())
    views = [torch.from_numpy(np.array(z)).requires_grad_() for z in (z1, z2)]
    partners = torch.arange(2 * len(z1)).roll(len(z1))

    def call() -> tuple[Any, Any]:
        rows = torch.nn.functional.normalize(torch.cat(views))
        logits = (rows @ rows.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        loss = torch.nn.functional.cross_entropy(logits, partners)
        return loss.detach(), torch.autograd.grad(loss, views)

    return f"PyTorch {torch.__version__}", call


def ours(loss: Callable[..., Array], *implementations: str) -> dict[str, Loss]:
    """A loss of this library in each of its implementations."""
    return {
        name: functools.partial(loss, temperature=TEMPERATURE, implementation=name)
        for name in implementations
    }


# What is compared, ours first; eager PyTorch joins nt_xent.
LOSSES: Mapping[str, Mapping[str, Loss]] = {
    "info_nce": {**ours(losses.info_nce, "streamed", "dense"), "plain jnp": plain.info_nce},
    "tiles": {
        f"info_nce, tile {tile}": functools.partial(info_nce_by_tile, tile=tile)
        for tile in (1024, 256, 512, 2048, 4096)
    },
    "nt_xent": {**ours(losses.nt_xent, "streamed", "dense"), "optax": optax_nt_xent},
    "clip": {
        **ours(losses.clip, "streamed", "dense"),
        "plain jnp": plain.clip,
        "info_nce, both ways": plain.clip_of_info_nce,
    },
    "siglip": {**ours(losses.siglip, "streamed", "dense"), "plain jnp": plain.siglip},
    "symmetric_loss": {
        "Grams": functools.partial(losses.symmetric_loss, temperature=TEMPERATURE),
        "dense": plain.symmetric_loss,
    },
    **plain.PAIRS,
}


def compare(loss: str, rows: int, width: int, repeats: int) -> list[dict[str, Any]]:
    """Every implementation of a loss on one batch; ratios are to the first.

    Raises:
      RuntimeError: they disagree on the value.
    """
    views = embeddings(rows, width)
    compiled = {
        name: value_and_gradient(function).lower(*views).compile()
        for name, function in LOSSES[loss].items()
        if name != "optax" or rows <= OPTAX_ROWS
    }
    calls = {name: functools.partial(function, *views) for name, function in compiled.items()}
    notes = {}
    if loss == "nt_xent" and jax.default_backend() == "cpu":
        notes[PYTORCH], call = pytorch_nt_xent(*views)
        if call is not None:
            calls[PYTORCH] = call
    values = {name: float(call()[0]) for name, call in calls.items()}
    if not np.allclose(list(values.values()), next(iter(values.values())), rtol=1e-3):
        raise RuntimeError(f"{loss} of {rows} rows has several values: {values}")
    times = milliseconds(calls, repeats)
    first = next(iter(times))
    results = []
    for name in [*compiled, *notes]:
        result = {"loss": loss, "implementation": name, "rows": rows, "width": width}
        if name in notes:
            result["note"] = notes[name]
        if name in times:
            result["ms"] = spread(times[name])
            result["slower"] = spread(
                theirs / mine for theirs, mine in zip(times[name], times[first], strict=True)
            )
        if name in compiled:
            result["temporary_mib"] = mebibytes(compiled[name])
            result["larger"] = result["temporary_mib"] / mebibytes(compiled[first])
        results.append(result)
    return results


def sim_trace_alone(rows: int, width: int, repeats: int) -> dict[str, Any]:
    """`sim_trace` of a batch, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(sim_trace, rows, width, repeats).result()


def sim_trace(rows: int, width: int, repeats: int) -> dict[str, Any]:
    """Time and temporaries of sim_trace, and the most memory that this process has ever held."""
    views = embeddings(rows, width)
    compiled = value_and_gradient(losses.sim_trace).lower(*views).compile()
    times = milliseconds({"ours": lambda: compiled(*views)}, repeats)["ours"]
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return {
        "loss": "sim_trace",
        "implementation": "ours",
        "rows": rows,
        "width": width,
        "ms": spread(times),
        "us_per_row": spread(1e3 * time / rows for time in times),
        "temporary_mib": mebibytes(compiled),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }


def million_rows() -> float:
    """MiB of temporaries of info_nce, without gradient, of 2^20 rows of 64 bfloat16."""
    views = jax.ShapeDtypeStruct((2**20, 64), jnp.bfloat16)
    loss = functools.partial(losses.info_nce, temperature=TEMPERATURE)
    return mebibytes(jax.jit(loss).lower(views, views).compile())


def on_accelerator(sizes: Sizes, dtype: str, repeats: int) -> list[dict[str, Any]]:
    """info_nce of large batches, and a matrix product of the same type.

    Both take float32 in full precision.
    """
    side = jnp.ones((8192, 8192), dtype)
    product = jax.jit(functools.partial(jnp.matmul, precision="highest"))
    (roofline,) = milliseconds({"product": lambda: product(side, side)}, repeats).values()
    teraflops = 2 * 8192**3 / spread(roofline).median / 1e9
    results = []
    for width in sizes.accelerator_widths:
        for rows in sizes.accelerator:
            views = embeddings(rows, width, dtype)
            loss = functools.partial(losses.info_nce, temperature=TEMPERATURE)
            compiled = value_and_gradient(loss).lower(*views).compile()
            (times,) = milliseconds({"ours": functools.partial(compiled, *views)}, repeats).values()
            reached = OPERATIONS * rows**2 * width / spread(times).median / 1e9
            results.append(
                {
                    "loss": f"info_nce on {jax.default_backend()}",
                    "implementation": f"{dtype}, D = {width}",
                    "rows": rows,
                    "width": width,
                    "ms": spread(times),
                    "temporary_mib": mebibytes(compiled),
                    "teraflops": reached,
                    "matmul_teraflops": teraflops,
                    "share": reached / teraflops,
                }
            )
    return results


def value_and_gradient(loss: Loss) -> Any:
    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def embeddings(rows: int, width: int, dtype: str = "float32") -> tuple[Array, Array]:
    """Two views of random embeddings."""
    draws = np.random.default_rng(0).standard_normal((2, rows, width), np.float32)
    return jnp.asarray(draws[0], dtype), jnp.asarray(draws[1], dtype)


def tables(record: Mapping[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    results = record["results"]
    comparisons = {}
    for result in results:
        if result["loss"] in LOSSES:
            comparisons.setdefault((result["loss"], result["rows"]), []).append(result)
    large = [result for result in results if result["loss"] not in LOSSES]
    on_top = rich.table.Table("info_nce, B = 2^20, D = 64, bfloat16", "temporaries, MiB")
    million = record["million_rows_temporary_mib"]
    on_top.add_row(
        "value, compiled only", f"{number(million)}; {verdict(million, most=MILLION_BAR_MIB)}"
    )
    return [
        *(comparison_table(loss, found) for (loss, _), found in comparisons.items()),
        large_table(large),
        on_top,
    ]


def comparison_table(loss: str, results: list[Mapping[str, Any]]) -> rich.table.Table:
    rows, width = results[0]["rows"], results[0]["width"]
    table = rich.table.Table(
        f"{loss}, B = {rows}, D = {width}",
        "ms: median (quartiles)",
        "times ours",
        "temporaries, MiB",
        "times ours",
    )
    for result in results:
        bars = BARS.get((loss, rows, result["implementation"]), {}) if width == 128 else {}
        cells = {name: "" for name in ("ms", "slower", "temporary_mib", "larger")}
        if "ms" in result:
            cells["ms"], cells["slower"] = str(result["ms"]), str(result["slower"])
        if "temporary_mib" in result:
            cells["temporary_mib"] = number(result["temporary_mib"])
            cells["larger"] = number(result["larger"])
        for name, least in bars.items():
            if name in result:
                value = result[name] if name == "larger" else result[name].median
                cells[name] += f"; {verdict(value, least=least)}"
        note = f" ({result['note']})" if "note" in result else ""
        table.add_row(result["implementation"] + note, *cells.values())
    return table


def large_table(results: list[Mapping[str, Any]]) -> rich.table.Table:
    table = rich.table.Table("", "B", "D", "ms: median (quartiles)", "temporaries, MiB", "")
    for result in results:
        if "peak_mib" in result:
            judged = verdict(result["peak_mib"], most=PEAK_BAR_MIB)
            peak = f"{number(result['peak_mib'])} MiB, {judged}"
            remark = f"{result['us_per_row']} us a row; peak of the process {peak}"
        else:
            remark = (
                f"{number(result['teraflops'])} TFLOP/s, {result['share']:.0%} of a matrix product"
            )
        name = f"{result['loss']}, {result['implementation']}"
        size = (str(result["rows"]), str(result["width"]))
        table.add_row(name, *size, str(result["ms"]), number(result["temporary_mib"]), remark)
    return table


def plot(record: Mapping[str, Any]) -> Any:
    """Time against the batch, a panel a loss."""
    panels = {}
    for result in record["results"]:
        if "ms" in result and result["loss"] != "tiles":
            lines = panels.setdefault(result["loss"], {})
            lines.setdefault(result["implementation"], []).append(
                (result["rows"], result["ms"].median)
            )
    drawn = figure(len(panels))
    for axes, (loss, lines) in zip(drawn.axes, panels.items(), strict=True):
        for name, points in lines.items():
            axes.loglog(*zip(*points, strict=True), marker="o", label=name, base=2)
        axes.set(title=loss, xlabel="batch size", ylabel="ms for value and gradient")
        axes.set_yscale("log", base=10)
        axes.legend()
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
