"""Representations of all examples of a data source, in a file."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxclr.buckets import client, reaching
from jaxclr.data import Arrays, Data, Dataset, Source, Stream
from jaxclr.data import load as load_data
from jaxclr.errors import UserError
from jaxclr.evaluation.features import host_rows
from jaxclr.evaluation.subject import check_channels, map_rows
from jaxclr.interop.loading import Loaded
from jaxclr.interop.partial import PartialTable
from jaxclr.interop.tables import writer_of
from jaxclr.paths import Path, cache_folder, in_bucket
from jaxclr.processes import runtime
from jaxclr.runs import parts
from jaxclr.runs.digests import digests
from jaxclr.runs.files import locked, writing
from jaxclr.runs.readers import is_there
from jaxclr.steps.examples import AHEAD, BATCH, Spread, spread
from jaxclr.steps.recipe import AXIS

Array = jax.Array
Number = Literal["float32", "float16"]

_WITHOUT_EFFECT = ("mean", "std", "memory_limit", "workers")  # fields of Data that change no row


def open_data(loaded: Loaded, data: Data | Arrays | Source) -> Dataset:
    """The splits of a data source whose images an encoder takes.

    Raises:
      UserError: the data cannot be loaded, or have other channels than the encoder takes.
    """
    # Images are normalized as the encoder's were, whatever theirs are.
    dataset = load_data(dataclasses.replace(data, mean=None, std=None))
    check_channels(dataset.name, dataset, loaded.channels)
    return dataset


def whole(data: Data | Arrays | Source) -> Data | Arrays | Source:
    """Data without a random test split: all examples in the order of the source."""
    return dataclasses.replace(data, test_fraction=0.0) if isinstance(data, Data) else data


def embed(
    loaded: Loaded,
    data: Data | Arrays | Source,
    out: Path,
    *,
    dtype: Number = "float32",
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, count: None,
) -> dict[str, int]:
    """Writes representations of all examples, as evaluation sees them, with names and labels.

    All devices of all processes embed, each process reads the rows of its devices, and the first
    one writes. Rows are appended to OUT.part/ as they are made, and progress is recorded every ten
    seconds. When all rows are there, OUT is written from them, and OUT.part is removed. The same
    call after an interruption continues from the record, on any devices; the file is the same as
    without an interruption. If OUT is in a bucket, OUT.part is in this machine's cache folder.

    Args:
      loaded: the encoder.
      data: what to embed, in its order: files by path, and one split after the other. Its mean and
        std are not used, but the run's. See also `whole`.
      out: file that ends in .npz or .parquet; see `tables`.
      dtype: of the numbers.
      overwrite: replace a file of that name, and start anew if something else was interrupted.
      report: called with the number of examples that are done, and of all.

    Returns:
      Rows by split; damaged images are left out where data.skip_corrupt says so.

    Raises:
      UserError: the file exists or cannot be written, data and encoder do not fit each other, or a
        representation is not finite in that type.
    """
    write = writer_of(out)
    runtime.run_on_first(functools.partial(_check_free, out, overwrite=overwrite))
    dataset = runtime.run_on_all(functools.partial(open_data, loaded, data))
    splits = {
        name: split
        for name, split in (("train", dataset.train), ("test", dataset.test))
        if split is not None
    }
    size = getattr(data, "image_size", None) or loaded.size
    if size is None and isinstance(dataset.train, Stream):
        raise UserError(
            "The encoder takes images of any size, and streamed ones may differ; "
            "set --data.image-size."
        )
    # By value, not by name: a run may be continued, and a folder moved.
    job = {
        **{
            f"data.{name}": value
            for name, value in _described(data).items()
            if name not in _WITHOUT_EFFECT
        },
        "images": {name: split.size for name, split in splits.items()},
        "encoder": f"{zlib.crc32(str(digests(loaded.variables)).encode()):08x}",
        "step": loaded.step,
        "dtype": dtype,
    }
    mesh = runtime.device_mesh(AXIS)
    variables = runtime.replicate(loaded.variables, mesh)
    encode = functools.partial(map_rows(loaded.represent, mesh), variables)
    with runtime.hold_on_first(_opened(out, job, overwrite=overwrite)) as table:
        sizes = [split.size for split in splits.values()]

        def append(name: str, rows: _Rows, done: int, before: int) -> None:
            assert table is not None  # on the first process
            values = _checked(rows, dtype)
            table.append(name, values, rows.labels, rows.names, seen=done)
            report(before + done, count)

        before, count, batch = 0, sum(sizes), min(BATCH, max(sizes)) * mesh.size
        for name, split in splits.items():
            done = runtime.broadcast(table and table.seen(name)) or 0
            some = spread(split, _places(done, split.size, batch), mesh, size=size)
            for rows in _represent(encode, some, name):
                done = min(done + batch, split.size)
                runtime.run_on_first(functools.partial(append, name, rows, done, before))
            before += split.size

        def finish() -> None:
            assert table is not None  # on the first process
            table.save()
            if not table.rows:
                raise UserError(f"'{dataset.name}' has no image that can be read.")
            whole = table.folder / f"whole{out.suffix}"
            write(whole, table, dataset.classes)
            if in_bucket(out):
                with reaching(out):
                    client(out).put_file(str(whole), str(out))
            else:
                os.replace(whole, out)
            table.remove()

        runtime.run_on_first(finish)
        written = {name: runtime.broadcast(table and table.rows.get(name, 0)) for name in splits}
    return {name: number for name, number in written.items() if number}


class _Rows(NamedTuple):
    """Representations [n, F] of some rows, with their labels and names."""

    values: np.ndarray
    labels: np.ndarray
    names: list[str]


def _places(start: int, stop: int, batch: int) -> np.ndarray:
    """The rows from start to stop in batches, [batches, batch], filled up with -1."""
    order = np.arange(start, start + -(-(stop - start) // batch) * batch)
    return np.where(order < stop, order, -1).reshape(-1, batch)


def _represent(
    encode: Callable[[Any], Array], batches: Iterator[Spread], split: str
) -> Iterator[_Rows]:
    """Representations of each batch, on the host of every process, without damaged images."""
    running: collections.deque[tuple[Array, Spread]] = collections.deque()

    def oldest() -> _Rows:
        values, found = running.popleft()
        indices, labels = (runtime.gather(of).ravel() for of in (found.indices, found.labels))
        kept = np.flatnonzero(indices >= 0)
        names = [f"{split} {index}" for index in indices]
        if found.names:
            names = runtime.gather_texts(found.names)
        return _Rows(host_rows(values)[kept], labels[kept], [names[row] for row in kept])

    while (found := runtime.run_on_all(lambda: next(batches, None))) is not None:
        running.append((encode(found.data), found))
        if len(running) > AHEAD:
            yield oldest()
    while running:
        yield oldest()


def _check_free(out: Path, *, overwrite: bool) -> None:
    if is_there(out) and not overwrite:
        raise UserError(f"{out} exists. Replace it with --overwrite, or give another --out.")


@contextlib.contextmanager
def _opened(out: Path, job: dict[str, Any], *, overwrite: bool) -> Iterator[PartialTable]:
    """The rows so far, in a folder that no other process writes to."""
    name = f"{out.name}.part"
    if in_bucket(out):
        digest = hashlib.sha256(str(out).encode()).hexdigest()[:32]
        folder = cache_folder() / "embeddings" / f"{digest}-{name}"
    else:
        folder = out.with_name(name)
    with writing(folder.parent), locked(folder / ".lock"):
        if overwrite:
            _discard(folder, job)
        with PartialTable(folder, job) as table:
            yield table


def _checked(rows: _Rows, dtype: Number) -> np.ndarray:
    """Representations [n, F] of the type."""
    with np.errstate(over="ignore"):
        values = rows.values.astype(dtype)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        diverged = "the run has diverged, or its checkpoint belongs to another run"
        remedy = "set --dtype float32" if dtype == "float16" else diverged
        name = rows.names[bad[0]]
        raise UserError(f"The representation of '{name}' is not finite in {dtype}; {remedy}.")
    return values


def _described(data: Data | Arrays | Source) -> dict[str, Any]:
    described = parts.describe(data)
    return described if isinstance(described, dict) else {"data": described}


def _discard(folder: pathlib.Path, job: dict) -> None:
    """Forgets an unfinished embedding of something else."""
    try:
        PartialTable(folder, job).__exit__()
    except UserError:
        for path in folder.iterdir():
            if path.name != ".lock":
                path.unlink()
