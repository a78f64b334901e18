"""Time of CIFAR-10 pre-training on one accelerator, by part, and the utilization of the device.

    python experiments/benchmarks/gpu.py [--method simclr] [--out FILE.json] [--profile DIR]

Images are noise: no figure depends on them. Every figure is the median of several repeats with its
quartiles. Repeats of programs that are compared alternate.

- Peak rates of the device: square bfloat16 matrix products, 3x3 bfloat16 convolutions of 512
  channels, memory.
- The step of the recipe in cifar10.py with a bfloat16 encoder: as the training loop calls it, and
  many steps in one program.
- Its parts, each compiled alone: operations as the compiler counts them, as a share of the rate of
  the convolution.
- One kNN evaluation (k = 200), and the share of its representations.
- Two crops of 256 images at 224 pixels by the full asymmetric recipe.
- If PyTorch is installed, a SimCLR loop in PyTorch (torch_simclr.py): images per second.

Kernels are not deterministic. With --profile, one more call of many steps is traced, for
TensorBoard or Perfetto.
"""

import dataclasses
import importlib.util
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend
import numpy as np
import parts
import rich.console
import rich.table
import rooflines
import tyro
from measure import Output, Spread, machine, number, run, spread, verdict
from rooflines import Program

from jaxclr import training
from jaxclr.data import Data
from jaxclr.runs.config import Config
from jaxclr.runs.experiments import load_experiment
from jaxclr.training.session import Session

CIFAR10 = pathlib.Path(__file__).parents[1] / "cifar10.py"
BARS = {"views": 0.10, "crops": 10.0, "convolution": 0.40, "pytorch": 1.5}
ENCODER = "encoder and heads, with gradient"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything; the defaults are for a GPU of tens of GiB."""

    repeats: int = 5
    steps: int = 97
    """Steps in a program, and in a run of the loop."""
    train: int = 50_000
    test: int = 10_000
    pixels: int = 32
    sides: tuple[int, ...] = (4096, 8192, 16_384)
    batches: tuple[int, ...] = (256, 1024, 4096)
    channels: int = 512
    mebibytes: int = 4096
    times: int = 20
    crops: tuple[int, int, int] = (256, 256, 224)
    """Images, their side, and that of their crops."""
    torch: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"width": 64, "blocks": (2, 2, 2, 2), "hidden": 512, "out": 128}
    )
    """Of the PyTorch network: the recipe's."""


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Time of CIFAR-10 pre-training on one accelerator, by part."""

    method: str = "simclr"
    """Method of cifar10.py."""

    batch_size: int = 512
    """Images in a step."""

    torch: bool = True
    """Measure the PyTorch loop too, if PyTorch is installed; comparable for simclr only."""

    torch_compile: bool = True
    """Try torch.compile."""

    profile: pathlib.Path | None = None
    """Folder for a trace of one call of many steps."""

    cache: pathlib.Path | None = pathlib.Path("build/xla-cache")
    """Folder where compiled programs are kept for other calls."""


def main(options: Options) -> None:
    with_torch = options.torch and importlib.util.find_spec("torch") is not None
    if with_torch:  # which needs some of the memory that JAX would take as a whole
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    if options.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(options.cache.resolve()))
    console = rich.console.Console()
    sizes = Sizes()
    with tempfile.TemporaryDirectory() as folder:
        session = training.open_session(configuration(options, sizes, pathlib.Path(folder)))
        record = measure(session, sizes, say=console.log)
        if with_torch:
            record["pytorch"] = side_by_side(session, sizes, compiled=options.torch_compile)
        if options.profile is not None:
            call = parts.scanned_steps(session, sizes.steps)
            jax.block_until_ready(call())
            with jax.profiler.trace(str(options.profile)):
                jax.block_until_ready(call())
    options.tell(record, tables(record))


def configuration(options: Options, sizes: Sizes, folder: pathlib.Path) -> Config:
    """The recipe in bfloat16, on noise."""
    draw = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", sizes.train), ("test", sizes.test)):
        arrays[f"{name}_images"] = draw.integers(
            0, 256, (count, sizes.pixels, sizes.pixels, 3), np.uint8
        )
        arrays[f"{name}_labels"] = np.arange(count) % 10
    np.savez(folder / "noise.npz", **arrays)
    config = load_experiment(CIFAR10, method=options.method)
    encoder = dataclasses.replace(config.encoder, dtype="bfloat16")
    data = Data(f"npz:{folder / 'noise.npz'}")
    return dataclasses.replace(config, encoder=encoder, data=data, batch_size=options.batch_size)


def measure(session: Session, sizes: Sizes, *, say: Callable[[str], None]) -> dict[str, Any]:
    """All but PyTorch."""
    record: dict[str, Any] = {
        "machine": {
            **machine(),
            "runtime": " ".join(jax.extend.backend.get_backend().platform_version.split()),
        },
        "method": type(session.config.method).__name__,
        "encoder": str(session.config.encoder),
        "batch_size": session.config.batch_size,
        "steps_in_a_program": sizes.steps,
        "crops_of": sizes.crops,
    }
    record["rooflines"] = []
    how = {"sides": sizes.sides, "batches": sizes.batches, "channels": sizes.channels}
    for name, make in rooflines.programs(
        **how, mebibytes=sizes.mebibytes, times=sizes.times
    ).items():
        say(name)
        record["rooflines"].append({"name": name, **timed(make(), sizes.repeats)})
    say("the step and its parts")
    programs = parts.step_parts(session)
    scanned = parts.scanned_steps(session, sizes.steps)
    for call in (scanned, *(program.call for program in programs.values())):
        jax.block_until_ready(call())
    rounds = []
    for _ in range(sizes.repeats):
        times = {
            name: run(program.call, sizes.steps, wait_for_each=False)
            for name, program in programs.items()
        }
        rounds.append({**times, "scanned": run(scanned, 1) / sizes.steps})
    record["step_ms"] = spread(r["scanned"] for r in rounds)
    record["images_per_second"] = spread(
        1e3 * session.config.batch_size / r["scanned"] for r in rounds
    )
    record["parts"] = [
        {
            "name": name,
            "ms": spread(r[name] for r in rounds),
            "share": spread(r[name] / r["scanned"] for r in rounds),
            "gflop": program.flops / 1e9,
            "tflop_per_second": spread(program.flops / r[name] / 1e9 for r in rounds),
        }
        for name, program in programs.items()
    ]
    best = max(
        r["tflop_per_second"].median for r in record["rooflines"] if "convolution" in r["name"]
    )
    record["best_convolution_tflop_per_second"] = best
    for part in record["parts"]:
        part["share_of_best_convolution"] = part["tflop_per_second"].median / best
    say("kNN and crops")
    calls = {
        "knn_ms": parts.knn(session, k=200, temperature=0.1),
        "knn_representations_ms": parts.embedding(session),
        "crops_ms": parts.crops(*sizes.crops),
    }
    return {
        **record,
        **{name: spread(_repeats(call, sizes.repeats)) for name, call in calls.items()},
    }


def side_by_side(session: Session, sizes: Sizes, *, compiled: bool) -> dict[str, Any]:
    """Images per second of jaxclr's steps in one program and of the PyTorch loop."""
    import torch
    from torch_simclr import SimClr

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = session.config.batch_size
    images = torch.from_numpy(np.moveaxis(session.dataset.train.examples, -1, 1).copy()).to(device)
    theirs = SimClr(images, batch_size=batch_size, compiled=compiled, shape=dict(sizes.torch))
    ours = parts.scanned_steps(session, sizes.steps)
    jax.block_until_ready(ours())
    theirs.run(min(3, sizes.steps))
    times = [(run(ours, 1), run(lambda: theirs.run(sizes.steps), 1)) for _ in range(sizes.repeats)]
    rate = lambda ms: 1e3 * batch_size * sizes.steps / ms
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch_compile": theirs.compile,
        "ours": spread(rate(ours) for ours, _ in times),
        "theirs": spread(rate(theirs) for _, theirs in times),
        "ratio": spread(theirs / ours for ours, theirs in times),
    }


def tables(record: Mapping[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    best = rich.table.Table("peak rates", "ms", "TFLOP/s", "GB/s")
    for row in record["rooflines"]:
        rates = (row["tflop_per_second"], row["gb_per_second"])
        best.add_row(
            row["name"], str(row["ms"]), *("" if rate.median == 0 else str(rate) for rate in rates)
        )
    headers = ("ms", "share of the step", "GFLOP", "TFLOP/s", "of the best convolution")
    step = rich.table.Table(f"{record['method']}, batch {record['batch_size']}", *headers)
    step.add_row(f"step, {record['steps_in_a_program']} in a program", str(record["step_ms"]))
    for part in record["parts"]:
        shares = f"{part['share'].median:.1%}", number(part["gflop"]), str(part["tflop_per_second"])
        step.add_row(
            part["name"], str(part["ms"]), *shares, f"{part['share_of_best_convolution']:.1%}"
        )
    step.add_row("images per second", str(record["images_per_second"]))
    shown = {part["name"]: part for part in record["parts"]}
    images, _, size = record["crops_of"]
    bars = rich.table.Table("figure", "median (quartiles)", "bar")
    share, crops = shown["views"]["share"], record["crops_ms"]
    bars.add_row("views, share of the step", str(share), verdict(share.median, most=BARS["views"]))
    reached = shown[ENCODER]["share_of_best_convolution"]
    bars.add_row(
        f"{ENCODER}: of the best convolution",
        number(reached),
        verdict(reached, least=BARS["convolution"]),
    )
    what = f"two crops of {images} images at {size} pixels, ms"
    bars.add_row(what, str(crops), verdict(crops.median, most=BARS["crops"]))
    bars.add_row("kNN evaluation, ms", str(record["knn_ms"]), "")
    bars.add_row("its representations, ms", str(record["knn_representations_ms"]), "")
    if (other := record.get("pytorch")) is not None:
        bars.add_row("images per second, ours", str(other["ours"]), "")
        what = (
            f"images per second, PyTorch {other['torch']}, torch.compile {other['torch_compile']}"
        )
        bars.add_row(what, str(other["theirs"]), "")
        bars.add_row(
            "ours over PyTorch's",
            str(other["ratio"]),
            verdict(other["ratio"].median, least=BARS["pytorch"]),
        )
    return [best, step, bars]


def timed(program: Program, repeats: int) -> dict[str, Spread]:
    """Milliseconds of a program, and its rates."""
    times = _repeats(program.call, repeats)
    return {
        "ms": spread(times),
        "tflop_per_second": spread(program.flops / ms / 1e9 for ms in times),
        "gb_per_second": spread(program.bytes / ms / 1e6 for ms in times),
    }


def _repeats(call: Callable[[], Any], repeats: int) -> list[float]:
    """Milliseconds of a call, once warm, so often."""
    run(call, 1)
    return [run(call, 1) for _ in range(repeats)]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
