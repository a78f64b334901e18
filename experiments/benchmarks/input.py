"""Reading images from files: images per second, memory, and the start with a large folder.

    python experiments/benchmarks/input.py [--short] [--out FILE.json]

Three measurements on JPEGs that are written for them, two random crops of each, without a model:

- Rate: images per second of all workers, and of one core that decodes and crops alone. The two
  alternate, so that both see the same load. If other processes use the same cores, as the load
  average shows, the ratio means little; the rate per second of processor time, of this process and
  its workers, excludes waiting only.
- Memory: resident in this process and its workers at the end of each epoch of a stream that goes to
  the device.
- Start: from a folder of many images to its first batch on the device, without imports and
  compilation.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import rich.table
import tyro
from measure import Output, machine, number, resident_mib, spread, verdict
from PIL import Image

from jaxclr.data import Data, Stream, load
from jaxclr.data.crops import Crop
from jaxclr.data.pieces import Pieces
from jaxclr.steps.batches import Batch
from jaxclr.training.feed import streamed_batches

SHARE_BAR = 0.8  # of as many cores as there are workers
GROWTH_BAR = 1.1  # of memory, from the first epoch to the largest
START_BAR_SECONDS = 20
LINKS = 5000  # names of one file: fewer than a file system allows


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is measured."""

    images: int = 512
    width: int = 500
    height: int = 375
    view: int = 224
    batch: int = 64
    epochs: int = 3
    rounds: int = 5
    listed: int = 100_000
    workers: int = os.cpu_count() or 1


SHORT = {"images": 128, "rounds": 3, "listed": 10_000}


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Reading images from files: images per second, memory, and the start with a large folder."""

    short: bool = False
    """Fewer images and rounds."""

    workers: int | None = None
    """Processes; None: one for each core."""


def main(options: Options) -> None:
    sizes = Sizes(**(SHORT if options.short else {}))
    if options.workers is not None:
        sizes = dataclasses.replace(sizes, workers=options.workers)
    record = measure(sizes)
    options.tell(record, tables(record))


def measure(sizes: Sizes) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        photos, many = pathlib.Path(folder, "photos"), pathlib.Path(folder, "many")
        write_photos(photos, sizes)
        link_many(photos, many, sizes.listed)
        load_before = os.getloadavg()[0]
        return {
            "machine": machine(),
            "load": load_before,
            "sizes": sizes,
            "rate": measure_rate(photos, sizes),
            "memory": measure_memory(photos, sizes),
            "start": measure_start(many, sizes),
        }


def measure_rate(folder: pathlib.Path, sizes: Sizes) -> dict[str, Any]:
    """Images per second of one core and of all workers, by wall time and by processor time.

    The measurements alternate.
    """
    pieces, cores = pieces_of(folder, sizes), max(1, sizes.workers)
    shares: dict[str, list[float]] = {"share": [], "processor_share": []}
    alone, together = [], []
    with contextlib.closing(pieces.steps(0, sizes.workers)) as steps:
        next(steps)
        for _ in range(sizes.rounds):
            rest()
            one = took(lambda: [pieces[part] for part in range(pieces.per_step)])
            # What the workers made in the meantime does not count: a few pieces each.
            for _ in range(-(-6 * cores // pieces.per_step)):
                next(steps)
            count = 2 * cores
            all_ = took(lambda count=count: [len(next(steps)) for _ in range(count)])
            alone.append(sizes.batch / one[0])
            together.append(count * sizes.batch / all_[0])
            shares["share"].append(count * one[0] / all_[0] / cores)
            shares["processor_share"].append(count * one[1] / all_[1])
    rates = {"one_core": spread(alone), "workers": spread(together)}
    return rates | {name: spread(values) for name, values in shares.items()}


def took(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time in this process and its workers."""
    start, busy = time.perf_counter(), processor_seconds()
    call()
    return time.perf_counter() - start, processor_seconds() - busy


def rest(seconds: float = 0.5) -> None:
    """Waits until the workers have filled their buffers, so that they leave the cores idle."""
    while True:
        busy = processor_seconds()
        time.sleep(seconds)
        if processor_seconds() - busy < 0.1 * seconds:
            return


def processor_seconds() -> float:
    def of(pid: int) -> float:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    return time.process_time() + sum(of(child.pid) for child in multiprocessing.active_children())


def measure_memory(folder: pathlib.Path, sizes: Sizes) -> dict[str, Any]:
    """MiB at the end of each epoch."""
    per_epoch = sizes.images // sizes.batch
    held = []
    with contextlib.closing(batches_of(folder, sizes)) as batches:
        for step in range(sizes.epochs * per_epoch):
            jax.block_until_ready(next(batches))
            if (step + 1) % per_epoch == 0:
                children = (child.pid for child in multiprocessing.active_children())
                held.append(sum(resident_mib(process=pid) for pid in ("self", *children)))
    return {"mib": held, "growth": max(held) / held[0]}


def measure_start(folder: pathlib.Path, sizes: Sizes) -> dict[str, float]:
    """Seconds to list the folder, and to the first batch."""
    start = time.perf_counter()
    stream_of(folder)
    listed = time.perf_counter()
    with contextlib.closing(batches_of(folder, sizes)) as batches:
        begin = time.perf_counter()
        jax.block_until_ready(next(batches))
        end = time.perf_counter()
    return {
        "list_seconds": listed - start,
        "first_batch_seconds": end - begin,
        "seconds": listed - start + end - begin,
    }


def stream_of(folder: pathlib.Path) -> Stream:
    return load(
        Data(f"folder:{folder}", streaming="always", channels="rgb", test_fraction=0.0)
    ).train


def pieces_of(folder: pathlib.Path, sizes: Sizes) -> Pieces:
    crop = Crop(sizes.view, (0.08, 1.0), (3 / 4, 4 / 3))
    return Pieces(stream_of(folder), (crop, crop), sizes.batch, seed=0)


def batches_of(folder: pathlib.Path, sizes: Sizes) -> Iterator[Batch]:
    pieces = pieces_of(folder, sizes)
    mesh = jax.make_mesh(
        (1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1]
    )
    return streamed_batches(pieces.stream, pieces.steps(0, sizes.workers), mesh, print)


def write_photos(folder: pathlib.Path, sizes: Sizes) -> None:
    """Coarse noise with a little fine noise: about as many bytes as photographs of that size."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(sizes.images):
        coarse = rng.integers(0, 256, (sizes.height // 16, sizes.width // 16, 3), dtype=np.uint8)
        coarse = np.asarray(Image.fromarray(coarse).resize((sizes.width, sizes.height)), float)
        pixels = np.clip(coarse + rng.normal(0, 8, coarse.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05}.jpg", quality=90)


def link_many(photos: pathlib.Path, folder: pathlib.Path, count: int) -> None:
    """So many names, in a hundred classes."""
    files = sorted(photos.iterdir())
    if count > LINKS * len(files):
        raise ValueError(f"{count} names need {-(-count // LINKS)} files, there are {len(files)}.")
    for label in range(100):
        (folder / f"{label:03}").mkdir(parents=True)
    for index in range(count):
        os.link(files[index % len(files)], folder / f"{index % 100:03}" / f"{index:07}.jpg")


def tables(record: dict[str, Any]) -> list[rich.table.Table]:
    """The figures for a person to read."""
    sizes, rate, memory, start = (record[name] for name in ("sizes", "rate", "memory", "start"))
    table = rich.table.Table(
        f"JPEGs of {sizes.width}x{sizes.height}, 2 crops of {sizes.view}, {sizes.workers} workers",
        "median (quartiles)",
    )
    table.add_row("images/s, one core alone", str(rate["one_core"]))
    table.add_row("images/s, all workers", str(rate["workers"]))
    met = verdict(rate["share"].median, least=SHARE_BAR)
    table.add_row("share of as many single cores", f"{rate['share']}; {met}")
    table.add_row("the same, by processor time", str(rate["processor_share"]))
    table.add_row("MiB at the end of each epoch", ", ".join(map(number, memory["mib"])))
    table.add_row(
        "largest over first",
        f"{memory['growth']:.3f}; {verdict(memory['growth'], most=GROWTH_BAR)}",
    )
    table.add_row(f"s to list {sizes.listed} files", number(start["list_seconds"]))
    met = verdict(start["seconds"], most=START_BAR_SECONDS)
    table.add_row(
        "s from there to a batch on the device",
        f"{number(start['first_batch_seconds'])}; both {met}",
    )
    table.add_row("load of the machine before", number(record["load"]))
    return [table]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
