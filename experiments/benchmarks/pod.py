"""Memory, FLOPs and collectives of a training step on a TPU pod, compiled without a TPU.

    python experiments/benchmarks/pod.py [--topology v5e:16x16] [--batch 128] [--search]
    python experiments/benchmarks/pod.py --short                  (losses only, on 8 chips: seconds)
    python experiments/benchmarks/pod.py --scaling [--batch 128] [--out FILE.json]

libtpu, the TPU's compiler, must be installed (pip install 'jax[tpu]'). Nothing is run and no data
is loaded: figures come from the compiler, and none is a time on a TPU. Per chip:

- `info_nce` alone, value and gradient: HBM and FLOPs, dense, streamed and in a ring, on 8 to 2048
  chips; and the largest global batch that fits the topology.
- The whole step of the experiment: HBM, FLOPs, collectives, and the share of the loss in each. It
  takes minutes.
- With --search, the largest batch at which the whole step fits.
- With --scaling, only the traffic of the whole step on 8 to 2048 chips; see scaling.py.

HBM is arguments, temporaries, outputs that reuse no argument, and code. Gathered columns of a few
MiB lie in the chip's VMEM and are not counted. Near the limit the compiler recomputes activations.
Collectives are those of the lowered program, of which the compiler merges some: the number of
calls, and their bytes, the larger of input and output. The compiler counts the body of a loop once.
FLOPs of the losses are therefore those of the matrix products in the lowered program, with loops
counted as often as they run; FLOPs of the step are the compiler's with this correction.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import rich.console
import rich.table
import scaling
import tyro
from jax.sharding import Mesh
from lowered import Need, Tally, Traffic, need_of, shares, tally
from measure import Output, figure, verdict
from programs import (
    info_nce_program,
    loss_program,
    mesh_of,
    pod,
    prepare_compiler,
    recipe_of,
    step_program,
)

from jaxclr.errors import UserError
from jaxclr.runs.experiments import load_experiment
from jaxclr.steps.state import image_examples, init_state

Array = jax.Array

GIB = 2**30
V5E_GIB = 15.75  # what the compiler lets a program have of 16 GB
IMPLEMENTATIONS = ("dense", "streamed", "ring")
SMALL_POD = "v5e:2x4"
PODS = (SMALL_POD, "v5e:8x8", "v5e:16x16", "v5p:8x16x16")  # 8, 64, 256 and 2048 chips
LOSS_ROWS = (128, 4096)  # of a chip
LOSS_BARS = {"hbm_share": 0.02, "flops_share": 0.02}  # most that the loss may take of the step


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Memory, FLOPs and collectives of a training step on a TPU pod, compiled without a TPU."""

    experiment: pathlib.Path = pathlib.Path(__file__).parents[1] / "imagenet.py"
    """Experiment file."""

    topology: str = "v5e:16x16"
    """TPU generation and shape of the pod, in libtpu's words."""

    batch: int = 128
    """Images of a chip."""

    image_shape: tuple[int, int, int] = (256, 256, 3)
    """H W C of a source image."""

    width: int = 256
    """Width of the embeddings, for the losses alone."""

    search: bool = False
    """Search the largest batch of a chip that fits; compiles the whole step for each it tries."""

    search_step: int = 32
    """To within how many images of a chip."""

    short: bool = False
    """The losses alone, on 8 chips."""

    pods: tuple[str, ...] = scaling.TOPOLOGIES
    """With --scaling: topologies of v5e and v5p."""

    scaling: bool = False
    """Only weak scaling: traffic of the whole step on 8 to 2048 chips; ten minutes for each."""


def main(options: Options) -> None:
    console = rich.console.Console()
    options.check_plots()
    prepare_compiler()
    if options.scaling:
        weak_scaling(options, console)
        return
    devices = pod(options.topology)
    record: dict[str, Any] = {
        "machine": machine(),
        "topology": options.topology,
        "width": options.width,
    }
    names = (SMALL_POD,) if options.short else PODS
    record["losses"] = [row for name in names for row in loss_rows(name, options.width, console)]
    if not options.short:
        mesh = mesh_of(devices)
        record["largest_losses"] = [
            largest_loss(mesh, options.width, implementation, console)
            for implementation in IMPLEMENTATIONS
        ]
        record["step"] = step_figures(options, mesh, console)
        if options.search:
            record["search"] = search(options, mesh, record["step"]["need"], console)
    options.tell(record, tables(record), plot)


def weak_scaling(options: Options, console: rich.console.Console) -> None:
    rows = scaling.measure(
        options.experiment, options.pods, options.batch, options.image_shape, console
    )
    record = {"machine": machine(), "experiment": options.experiment.name, "rows": rows}
    options.tell(record, [scaling.table(rows)], lambda _: scaling.plot(rows))


def machine() -> dict[str, str]:
    """What compiled."""
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    try:
        versions["libtpu"] = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        versions["libtpu"] = f"from TPU_LIBRARY_PATH={os.environ.get('TPU_LIBRARY_PATH')}"
    return {**versions, "python": platform.python_version(), "cores": str(os.cpu_count())}


def loss_rows(topology: str, width: int, console: rich.console.Console) -> Iterator[dict[str, Any]]:
    """What `info_nce` needs on a pod, by implementation and rows of a chip."""
    mesh = mesh_of(pod(topology))
    for rows in LOSS_ROWS:
        for implementation in IMPLEMENTATIONS:
            for constant_keys in (False, True):
                program = info_nce_program(
                    mesh, rows, width, implementation, constant_keys=constant_keys
                )
                row = {
                    "topology": topology,
                    "chips": mesh.size,
                    "rows": rows,
                    "implementation": implementation,
                    "constant_keys": constant_keys,
                    "need": need_of(program),
                    "tally": tally(program),
                }
                console.log(_told(f"{topology} {implementation}, {rows} rows a chip", row["need"]))
                yield row


def largest_loss(
    mesh: Mesh, width: int, implementation: str, console: rich.console.Console
) -> dict[str, Any]:
    """The largest batch at which `info_nce` alone, with gradients at queries and keys, fits."""
    needs: dict[int, Need] = {}

    def fits(rows: int) -> bool:
        program = info_nce_program(mesh, rows, width, implementation, constant_keys=False)
        needs[rows] = need_of(program)
        console.log(_told(f"{implementation}, {rows} rows a chip", needs[rows]))
        return needs[rows].fits

    most, refused = largest(fits, start=4096, finest=lambda fitting: max(128, fitting // 8))
    return {
        "implementation": implementation,
        "chips": mesh.size,
        "rows": most,
        "refused_rows": refused,
        "global_batch": most * mesh.size,
        "need": needs.get(most),
        "refused": needs.get(refused),
    }


def largest(
    fits: Callable[[int], bool], *, start: int, finest: Callable[[int], int]
) -> tuple[int, int]:
    """The largest size known to fit and the smallest known not to, by doubling, then bisection.

    Args:
      fits: whether a size fits; if one does, so do all smaller ones.
      start: the first size to try, from where sizes double, or halve if it does not fit.
      finest: of the largest size known to fit: the distance to the other at which to stop.

    Returns:
      Both sizes; the first is 0 if not even one fits.
    """
    fitting, refused = 0, start
    while fits(refused):
        fitting, refused = refused, 2 * refused
    while fitting == 0 and refused > 1:
        if fits(refused // 2):
            fitting = refused // 2
        else:
            refused //= 2
    while fitting and refused - fitting > finest(fitting):
        grid = finest(fitting)
        middle = fitting + max(1, (refused - fitting) // (2 * grid)) * grid
        if fits(middle):
            fitting = middle
        else:
            refused = middle
    return fitting, refused


def step_figures(options: Options, mesh: Mesh, console: rich.console.Console) -> dict[str, Any]:
    """Figures of the whole step, and of the loss alone at its shapes."""
    config = load_experiment(options.experiment)
    shape, rows = options.image_shape, options.batch
    recipe = recipe_of(config, global_batch=rows * mesh.size, channels=shape[-1])
    loss, step = loss_program(recipe, mesh, rows, shape), step_program(recipe, mesh, rows, shape)
    of_loss, of_step = need_of(loss), need_of(step)
    console.log(_told(f"{options.experiment.stem}, {rows} images a chip", of_step))
    state = jax.eval_shape(lambda: init_state(recipe, image_examples(*shape)))
    return {
        "experiment": options.experiment.name,
        "method": type(config.method).__name__,
        "rows": rows,
        "global_batch": rows * mesh.size,
        "image_shape": shape,
        "state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        "need": of_step,
        "tally": tally(step),
        "loss_need": of_loss,
        "loss_tally": tally(loss),
        **shares(of_step, of_loss, tally(loss).matmul_flops),
    }


def search(
    options: Options, mesh: Mesh, known: Need, console: rich.console.Console
) -> dict[str, Any]:
    """The largest batch of a chip at which the whole step fits, from a batch that is known."""
    config, shape = load_experiment(options.experiment), options.image_shape
    needs = {options.batch: known}

    def fits(rows: int) -> bool:
        if rows not in needs:
            recipe = recipe_of(config, global_batch=rows * mesh.size, channels=shape[-1])
            needs[rows] = need_of(step_program(recipe, mesh, rows, shape))
            console.log(_told(f"whole step, {rows} images a chip", needs[rows]))
        return needs[rows].fits

    most, refused = largest(fits, start=options.batch, finest=lambda _: options.search_step)
    return {"rows": most, "refused_rows": refused, "needs": dict(sorted(needs.items()))}


def tables(record: dict[str, Any]) -> Iterator[rich.table.Table]:
    """The figures for a person to read."""
    alone = rich.table.Table(
        f"info_nce alone, D = {record['width']}",
        "chips",
        "rows a chip",
        "keys",
        "HBM a chip",
        "GFLOP",
        "collectives: bytes",
    )
    for row in record["losses"]:
        alone.add_row(
            row["implementation"],
            str(row["chips"]),
            str(row["rows"]),
            "constant" if row["constant_keys"] else "with gradient",
            _hbm(row["need"]),
            f"{row['tally'].matmul_flops / 1e9:,.1f}",
            _collectives(row["tally"]),
        )
    yield alone
    if "largest_losses" in record:
        most = rich.table.Table(
            f"largest info_nce on {record['topology']}",
            "rows a chip",
            "global batch",
            "HBM",
            "does not fit",
        )
        for row in record["largest_losses"]:
            most.add_row(
                row["implementation"],
                f"{row['rows']:,}",
                f"{row['global_batch']:,}",
                _hbm(row["need"]),
                f"{row['refused_rows']:,}: {_hbm(row['refused'])}",
            )
        yield most
    if "step" in record:
        yield _step_table(record)
    if "search" in record:
        found = rich.table.Table("images a chip", "HBM a chip", "seconds to compile")
        for rows, need in record["search"]["needs"].items():
            found.add_row(str(rows), _hbm(need), f"{need.seconds:.0f}")
        yield found


def _step_table(record: dict[str, Any]) -> rich.table.Table:
    step = record["step"]
    title = (
        f"{step['method']} on {record['topology']}: {step['rows']} images a chip, "
        f"{step['global_batch']} in all"
    )
    table = rich.table.Table("a chip", "whole step", "loss alone", "share of the loss", title=title)
    need, loss, loss_flops = step["need"], step["loss_need"], step["loss_tally"].matmul_flops
    for part in ("arguments", "temporaries", "outputs", "aliased", "code"):
        cells = (getattr(of, part) for of in (need, loss))
        table.add_row(part, *("" if cell is None else size(cell) for cell in cells), "")
    flops = ("" if of is None else f"{of / 1e12:.3g} T" for of in (step["flops"], loss_flops))
    for name, cells in (("hbm", (_hbm(need), _hbm(loss))), ("flops", flops)):
        share, bar = step[f"{name}_share"], LOSS_BARS[f"{name}_share"]
        told = "" if share is None else f"{share:.4f}; {verdict(share, most=bar)}"
        table.add_row(name.upper(), *cells, told)
    kinds = sorted({*step["tally"].collectives, *step["loss_tally"].collectives})
    for kind in kinds:
        counts = (step[of].collectives.get(kind, Traffic()) for of in ("tally", "loss_tally"))
        table.add_row(f"{kind}: calls", *(f"{of.calls:,}: {size(of.bytes)}" for of in counts), "")
    table.add_row("seconds to compile", f"{need.seconds:.0f}", f"{loss.seconds:.0f}", "")
    return table


def size(count: float) -> str:
    """Bytes in the largest unit of which there is at least one, to three digits."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    raise AssertionError


def _hbm(need: Need | None) -> str:
    if need is None:
        return ""
    if need.fits:
        return size(need.hbm)
    return (
        "does not fit"
        if need.hbm is None
        else f"{size(need.hbm)} of {size(need.limit)}: does not fit"
    )


def _told(what: str, need: Need) -> str:
    return f"{what}: {_hbm(need)}, compiled in {need.seconds} s"


def _collectives(counted: Tally) -> str:
    traffic = counted.collectives.values()
    calls, carried = sum(of.calls for of in traffic), sum(of.bytes for of in traffic)
    return f"{calls:,}: {size(carried)}"


def plot(record: dict[str, Any]) -> Any:
    """HBM of the losses alone against the number of chips, a panel for each batch of a chip."""
    drawn = figure(len(LOSS_ROWS))
    for panel, rows in zip(drawn.axes, LOSS_ROWS, strict=True):
        for implementation in IMPLEMENTATIONS:
            points = [
                (row["chips"], row["need"].hbm / GIB)
                for row in record["losses"]
                if (row["rows"], row["implementation"]) == (rows, implementation)
                and not row["constant_keys"]
                and row["need"].hbm is not None
            ]
            panel.plot(*zip(*points, strict=True), marker="o", label=implementation)
        panel.axhline(V5E_GIB, color="gray", linestyle="--", label="a v5e chip")
        panel.set_xscale("log", base=2)
        panel.set(yscale="log", xlabel="chips (2048: v5p, others v5e)", title=f"{rows} rows a chip")
    drawn.axes[0].set_ylabel(f"HBM of info_nce a chip, GiB (D = {record['width']})")
    drawn.axes[-1].legend()
    return drawn


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except UserError as error:
        sys.exit(str(error))
