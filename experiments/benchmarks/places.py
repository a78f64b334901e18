"""CIFAR-10 as TFRecord, and in a bucket, against array_record on a disk: the same bits, and rates.

    python experiments/benchmarks/places.py TFDS_FOLDER [--bucket gs] [--out FILE.json]

TFDS_FOLDER has CIFAR-10 as array_record. It is written as TFRecord and uploaded to a server of
buckets on this machine (tests/buckets.py), with photographs that are written for it.

- Index: seconds to index all 60,000 records.
- Training: largest difference of parameters after 20 steps from those of array_record, in memory
  and streamed, with threads and with two workers.
- Rate: streamed images per second with two workers, two crops each, from the disk and from the
  bucket. The server is Python and uses the same cores, so that the ratio is a lower bound.

Measured on two cores, beside other programs, 256 photographs, 3 rounds: index 0.20 s; all
differences 0; photographs 210 images per second from the disk and 175 from the bucket; CIFAR-10
2,465 and 504, whose spread is from 367 to 2,417.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import jax
import numpy as np
import rich.table
import tyro
from array_record.python.array_record_module import ArrayRecordReader
from input import Sizes, write_photos
from measure import Output, machine, number, spread, verdict
from tensorboardX.record_writer import RecordWriter

from jaxclr.augment import AUGMENTATIONS
from jaxclr.data import Data, buckets, load, tfrecord
from jaxclr.data.crops import Crop
from jaxclr.data.pieces import Pieces
from jaxclr.encoders import SmallConv
from jaxclr.methods import SimAffinity
from jaxclr.runs.config import Config
from jaxclr.training.feed import open_feed
from jaxclr.training.loop import compile_step
from jaxclr.training.session import open_session

VERSION = "cifar10/3.0.2"
BAR_SECONDS = 5
STEPS = 20
MODES = {
    "in memory": {"streaming": "never"},
    "streamed, threads": {"streaming": "always", "workers": 0},
    "streamed, 2 workers": {"streaming": "always", "workers": 2},
}
SERVER = pathlib.Path(__file__).parents[2] / "tests" / "buckets.py"


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """CIFAR-10 as TFRecord, and in a bucket, against array_record on a disk."""

    folder: tyro.conf.Positional[Annotated[pathlib.Path, tyro.conf.arg(metavar="TFDS_FOLDER")]]
    """Data sets of TFDS, with cifar10/3.0.2 as array_record."""

    bucket: Literal["gs", "s3"] = "gs"
    """Kind of the bucket."""

    rows: int = 2000
    """Training images of the runs that are compared."""

    photos: int = 512
    """Photographs of the rates."""

    rounds: int = 5
    """Of the rates; those from the disk and from the bucket alternate."""


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as temporary, served(options.bucket) as url:
        root = pathlib.Path(temporary)
        write_tfrecord(options.folder / VERSION, root / "tfds" / VERSION)
        seconds = index_seconds(root / "tfds" / VERSION)
        write_photos(root / "photos", Sizes(images=options.photos))
        upload(root, url)
        places = {"TFRecord": root / "tfds", f"TFRecord, {options.bucket}://": f"{url}/tfds"}
        rates = {
            "JPEG, 500x375 to 2 x 224": [f"folder:{place}/photos" for place in (root, url)],
            "CIFAR-10, TFRecord": [f"tfds:cifar10 {place}/tfds" for place in (root, url)],
        }
        record = {
            "machine": machine(),
            "load": os.getloadavg()[0],
            "index_seconds": seconds,
            "differences": differences(options, places),
            "rates": {name: compare(pair, options) for name, pair in rates.items()},
        }
    options.tell(record, tables(record))


@contextlib.contextmanager
def served(kind: str) -> Iterator[str]:
    """The URL of a bucket of a server in its own process."""
    command = [sys.executable, str(SERVER), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        server = json.loads(process.stdout.readline())
        os.environ.update(server["environment"])
        yield server["url"]
        process.stdin.close()


def write_tfrecord(source: pathlib.Path, target: pathlib.Path) -> None:
    """The records of a prepared data set in TFDS's default format."""
    target.mkdir(parents=True)
    info = json.loads((source / "dataset_info.json").read_text()) | {"fileFormat": "tfrecord"}
    for place in (source / "features.json", source / "label.labels.txt"):
        (target / place.name).write_text(place.read_text())
    (target / "dataset_info.json").write_text(json.dumps(info))
    for place in sorted(source.glob("*.array_record-*")):
        reader = ArrayRecordReader(str(place))
        writer = RecordWriter(str(target / place.name.replace("array_record", "tfrecord")))
        for record in reader.read_all():
            writer.write(record)
        writer.close()
        reader.close()


def upload(folder: pathlib.Path, url: str) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    for path in files:
        buckets.file_system(url).pipe_file(f"{url}/{path.relative_to(folder)}", path.read_bytes())


def index_seconds(folder: pathlib.Path) -> float:
    """Seconds to index all records of a folder, which has no index yet."""
    paths = sorted(map(str, folder.glob("*.tfrecord-*")))
    start = time.perf_counter()
    found = tfrecord.index(paths)
    seconds = time.perf_counter() - start
    assert sum(len(offsets) - 1 for offsets in found.values()) == 60_000
    return seconds


def differences(options: Options, places: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Largest difference of a parameter after STEPS steps from that of array_record."""
    wanted = {mode: trained(options.folder, mode, options.rows) for mode in MODES}
    return {
        name: {
            mode: max(
                float(np.abs(np.subtract(one, other)).max())
                for one, other in zip(wanted[mode], trained(place, mode, options.rows), strict=True)
            )
            for mode in MODES
        }
        for name, place in places.items()
    }


def trained(folder: Any, mode: str, rows: int) -> list[np.ndarray]:
    """Parameters after STEPS steps."""
    splits = {"train_split": f"train[:{rows}]+test[:{rows // 10}]", "test_split": "test[-100:]"}
    statistics = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    config = Config(
        method=SimAffinity().with_heads(hidden=32, out=16),
        encoder=SmallConv(widths=(8, 16)),
        data=Data("tfds:cifar10", dir=str(folder), **splits, **statistics, **MODES[mode]),
        augmentation=AUGMENTATIONS["cifar"],
        batch_size=64,
        epochs=2,
        warmup_epochs=0.0,
    )
    session = open_session(config)
    state, step = session.init_state(), compile_step(session)
    with contextlib.closing(open_feed(session, start=0, report=print)) as feed:
        for _ in range(STEPS):
            state, _ = jax.block_until_ready(step(state, next(feed.batches)))
    return jax.tree.leaves(jax.device_get((state.params, state.batch_stats)))


def compare(sources: list[str], options: Options) -> dict[str, Any]:
    """Images per second of two places; they alternate."""
    rates: list[list[float]] = [[], []]
    for _ in range(options.rounds):
        for place, source in enumerate(sources):
            with contextlib.closing(batches(source)) as steps:
                for _ in range(3):
                    next(steps)
                start, images = time.perf_counter(), 0
                while images < options.photos:
                    images += next(steps)
                rates[place].append(images / (time.perf_counter() - start))
    return {
        "disk": spread(rates[0]),
        "bucket": spread(rates[1]),
        "ratio": spread(b / d for d, b in zip(*rates, strict=True)),
    }


def batches(source: str) -> Iterator[int]:
    """The number of images of each batch of a stream."""
    name, _, folder = source.partition(" ")
    train = load(Data(name, dir=folder or None, streaming="always", test_fraction=0.0)).train
    crop = Crop(32 if folder else 224, (0.08, 1.0), (3 / 4, 4 / 3))
    with contextlib.closing(Pieces(train, (crop, crop), 64, seed=0).steps(0, 2)) as steps:
        for pieces in steps:
            yield sum(len(piece.indices) for piece in pieces)


def tables(record: dict[str, Any]) -> list[rich.table.Table]:
    bits = rich.table.Table("parameters after 20 steps, largest difference", *MODES)
    for name, found in record["differences"].items():
        bits.add_row(name, *(f"{value:.3g}" for value in found.values()))
    rates = rich.table.Table("images per second, 2 workers", "disk", "bucket", "ratio")
    for name, found in record["rates"].items():
        rates.add_row(name, *(str(found[column]) for column in ("disk", "bucket", "ratio")))
    index = rich.table.Table("index of 60,000 records, s", "bar")
    seconds = record["index_seconds"]
    index.add_row(number(seconds), verdict(seconds, most=BAR_SECONDS))
    return [index, bits, rates]


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
