"""Reading images from files: images per second, memory, and the start with a large folder.

    python experiments/benchmarks/input.py [--short] [--out FILE.json]

Images are written for it, two random crops of each are made, without a model: JPEGs, and small
records, which are PNGs of 32 x 32 in a tar shard or --records SOURCE (such as tfds:cifar10 with
--dir).

- Rate: images per second of all workers, and of one core that decodes and crops alone. The two
  alternate, so that both see the same load. If other processes use the same cores, as the load
  average shows, the ratio means little; the rate per second of processor time, of this process and
  its workers, excludes waiting only.
- Processor time of an image, by part and by process. "Processes without Grain" are as many that
  decode and crop at once and hand nothing on: what they take more than one core alone is the
  machine's. Two threads make two pieces at once in one process, as in a worker. Grain's workers
  run twice: as they are, and with pieces that are not handed on. How long their threads wait for a
  core shows how much other programs take.
- Memory: resident in this process and its workers at the end of each epoch of a stream of JPEGs
  that goes to the device.
- Start: from a folder of many JPEGs to its first batch on the device, without imports and
  compilation.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import io
import multiprocessing
import os
import pathlib
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import rich.table
import tyro
from grain._src.python.ipc import shared_memory_array
from measure import Output, Spread, machine, number, resident_mib, spread, verdict
from PIL import Image

from jaxclr.data import Data, Stream, load
from jaxclr.data.crops import Boxes, Crop, crop_draws, take_crops
from jaxclr.data.images import decode
from jaxclr.data.pieces import Piece, Pieces, read_in_workers
from jaxclr.data.pixels import Encoded
from jaxclr.steps.batches import Batch
from jaxclr.training.feed import streamed_batches

SHARE_BAR = 0.8  # of as many cores as there are workers
GROWTH_BAR = 1.1  # of memory, from the first epoch to the largest
START_BAR_SECONDS = 20
AHEAD = 16  # more pieces than a worker makes ahead
COUNTED = 32  # pieces of each worker that are timed
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
    records: int = 20_000
    record_side: int = 32
    record_batch: int = 256


SHORT = {"images": 128, "rounds": 3, "listed": 10_000, "records": 4000}


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Reading images from files: images per second, memory, and the start with a large folder."""

    short: bool = False
    """Fewer images and rounds."""

    workers: int | None = None
    """Processes; None: one for each core."""

    records: str | None = None
    """Source of small records, instead of a tar shard of PNGs."""

    dir: str | None = None
    """Folder of prepared TFDS data sets."""

    only_records: bool = False
    """Leave out the JPEGs."""


def main(options: Options) -> None:
    sizes = Sizes(**(SHORT if options.short else {}))
    if options.workers is not None:
        sizes = dataclasses.replace(sizes, workers=options.workers)
    record = measure(sizes, options.records, options.dir, photos=not options.only_records)
    options.tell(record, tables(record))


def measure(
    sizes: Sizes, records: str | None = None, data_dir: str | None = None, *, photos: bool = True
) -> dict[str, Any]:
    """All figures."""
    record = {"machine": machine(), "load": os.getloadavg()[0], "sizes": sizes}
    with tempfile.TemporaryDirectory() as folder:
        if photos:
            few, many = pathlib.Path(folder, "photos"), pathlib.Path(folder, "many")
            write_photos(few, sizes)
            link_many(few, many, sizes.listed)
            record["photos"] = measure_stream(pieces_of(few, sizes), sizes)
            record["memory"] = measure_memory(few, sizes)
            record["start"] = measure_start(many, sizes)
        if records is None:
            records = f"wds:{folder}/records.tar"
            write_records(pathlib.Path(folder, "records.tar"), sizes)
        record["records"] = measure_stream(pieces_of_records(records, data_dir, sizes), sizes)
        record["source"] = records.partition("/")[0]
    return record


def measure_stream(pieces: Pieces, sizes: Sizes) -> dict[str, Any]:
    """Rates, and processor time by part."""
    return {"rate": measure_rate(pieces, sizes), "parts": measure_parts(pieces, sizes)}


def measure_rate(pieces: Pieces, sizes: Sizes) -> dict[str, Any]:
    """Images per second of one core and of all workers, by wall time and by processor time.

    The measurements alternate.
    """
    batch, cores = pieces.batch_size, max(1, sizes.workers)
    shares: dict[str, list[float]] = {"share": [], "processor_share": []}
    alone, together = [], []
    with contextlib.closing(pieces.steps(0, sizes.workers)) as steps:
        next(steps)
        for _ in range(sizes.rounds):
            rest()
            one = took(lambda: [pieces[part] for part in range(pieces.per_step)])
            drain(steps, pieces, cores)
            count = at_least(2 * cores, COUNTED * cores, pieces)
            all_ = took(lambda count=count: [len(next(steps)) for _ in range(count)])
            alone.append(batch / one[0])
            together.append(count * batch / all_[0])
            shares["share"].append(count * one[0] / all_[0] / cores)
            shares["processor_share"].append(count * one[1] / all_[1])
    rates = {"one_core": spread(alone), "workers": spread(together)}
    return rates | {name: spread(values) for name, values in shares.items()}


def drain(steps: Iterator[Any], pieces: Pieces, workers: int) -> None:
    """Takes what the workers have made ahead, which does not count."""
    for _ in range(at_least(1, AHEAD * workers, pieces)):
        next(steps)


def at_least(steps: int, count: int, pieces: Pieces) -> int:
    """Number of steps, at least these and those of so many pieces."""
    return max(steps, -(-count // pieces.per_step))


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


def waited_seconds() -> float:
    """Time for which threads of child processes could run and had no core, on Linux."""
    pids = (child.pid for child in multiprocessing.active_children())
    tasks = (task for pid in pids for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks) / 1e9


@dataclasses.dataclass(frozen=True)
class Discarded:
    """Pieces that are made and not handed on."""

    pieces: Pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, number: int) -> int:
        self.pieces[number]
        return number


def measure_parts(pieces: Pieces, sizes: Sizes) -> dict[str, Spread]:
    """Microseconds of processor time per image, by part and by process."""
    stream, batch, workers = pieces.stream, pieces.batch_size, max(1, sizes.workers)
    rows = stream.rows[:batch].tolist()
    found: dict[str, list[float]] = {}

    def add(part: str, seconds: float, images: int = batch) -> None:
        found.setdefault(part, []).append(1e6 * seconds / images)

    def take(part: str, call: Callable[[], Any], images: int = batch) -> Any:
        start = time.process_time()
        result = call()
        add(part, time.process_time() - start, images)
        return result

    def compute(number: int) -> list[Piece]:
        first = number * pieces.per_step
        return [pieces[first + part] for part in range(pieces.per_step)]

    def read() -> list[Encoded]:
        def of(file: Encoded) -> Encoded:
            with file.open() as opened:
                return Encoded(file.name, functools.partial(io.BytesIO, opened.read()))

        return [of(file) for file, _ in stream.stored.read(rows)]

    def crop(files: list[Encoded]) -> None:
        boxes = Boxes(pieces.crops, crop_draws(0, 0, np.arange(batch), len(pieces.crops)))
        for row, file in enumerate(files):
            take_crops(file, boxes, row, stream.data)

    def alone() -> None:
        files = take("read records", read)
        take("open and decode", lambda: [decode(file, stream.data) for file in files])
        take("the same, and crop", lambda: crop(files))
        made = take("one core alone", lambda: compute(0))
        sent = take("to shared memory", lambda: shared_memory_array.copy_to_shm(made))
        take("copy out of it", lambda: copied(sent))

    def grain(items: Iterator[Any], how: str) -> None:
        rest()
        for _ in range(AHEAD * workers):  # what they have made ahead does not count
            next(items)
        counted = [processor_seconds(), time.process_time(), waited_seconds()]
        for _ in range(COUNTED * workers):
            next(items)
        now = [processor_seconds(), time.process_time(), waited_seconds()]
        all_, mine, waited = (after - before for after, before in zip(now, counted, strict=True))
        images = COUNTED * workers * batch // pieces.per_step
        add(f"Grain's workers{how}", all_ - mine, images)
        add(f"the process that takes their pieces{how}", mine, images)
        add(f"Grain's workers wait for a core{how}", waited, images)

    threads = concurrent.futures.ThreadPoolExecutor(2)
    spawn = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn)
    open_ = lambda source: contextlib.closing(read_in_workers(source, 0, sizes.workers))
    with open_(pieces) as handed_on, open_(Discarded(pieces)) as discarded, threads, pool:
        next(handed_on), next(discarded)
        each = ([pieces] * sizes.workers, range(sizes.workers))
        list(pool.map(processor_time, *each))
        for _ in range(sizes.rounds):
            rest()
            alone()
            both = lambda: list(threads.map(compute, range(2)))
            take("one process, two threads", both, 2 * batch)
            for seconds in pool.map(processor_time, *each):
                add("processes without Grain", seconds)
            grain(discarded, ", nothing handed on")
            grain(handed_on, "")
    return {part: spread(values) for part, values in found.items()}


def copied(sent: Any) -> list[np.ndarray]:
    """Arrays of pieces in shared memory, which is freed."""
    pieces = shared_memory_array.open_from_shm(sent)
    return [np.array(array) for piece in pieces for array in (*piece.crops, *piece[1:])]


def processor_time(pieces: Pieces, number: int) -> float:
    """Seconds of processor time of one step, the mean of four."""
    start = time.process_time()
    for step in range(4):
        for part in range(pieces.per_step):
            pieces[(4 * number + step) * pieces.per_step + part]
    return (time.process_time() - start) / 4


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


def pieces_of_records(source: str, data_dir: str | None, sizes: Sizes) -> Pieces:
    data = Data(source, dir=data_dir, streaming="always", test_fraction=0.0)
    crop = Crop(sizes.record_side, (0.08, 1.0), (3 / 4, 4 / 3))
    return Pieces(load(data).train, (crop, crop), sizes.record_batch, seed=0)


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


def write_records(path: pathlib.Path, sizes: Sizes) -> None:
    """A tar shard of PNGs of noise."""
    rng, side = np.random.default_rng(0), sizes.record_side
    with tarfile.open(path, "w") as tar:
        for index in range(sizes.records):
            content = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(content, "PNG")
            member = tarfile.TarInfo(f"{index:06}.png")
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)


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
    sizes, shown = record["sizes"], []
    titles = {
        "photos": f"JPEGs of {sizes.width}x{sizes.height}, 2 crops of {sizes.view}",
        "records": f"{record['source']}, 2 crops of {sizes.record_side}",
    }
    for kind, title in titles.items():
        if kind in record:
            table = rich.table.Table(f"{title}, {sizes.workers} workers", "median (quartiles)")
            add_rate(table, record[kind]["rate"])
            shown.append(table)
            parts = rich.table.Table("processor time of an image", "microseconds")
            for part, micros in record[kind]["parts"].items():
                parts.add_row(part, str(micros))
            shown.append(parts)
    if "start" in record:
        memory, start = record["memory"], record["start"]
        table = rich.table.Table("the same JPEGs", "")
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
        shown.append(table)
    return shown


def add_rate(table: rich.table.Table, rate: dict[str, Any]) -> None:
    table.add_row("images/s, one core alone", str(rate["one_core"]))
    table.add_row("images/s, all workers", str(rate["workers"]))
    met = verdict(rate["share"].median, least=SHARE_BAR)
    table.add_row("share of as many single cores", f"{rate['share']}; {met}")
    table.add_row("the same, by processor time", str(rate["processor_share"]))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
