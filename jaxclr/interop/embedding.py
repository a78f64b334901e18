"""Representations of all images of a data source, in a file."""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from jaxclr.data import Data, Dataset, Split, Stream
from jaxclr.data import load as load_data
from jaxclr.errors import UserError
from jaxclr.interop.loading import Loaded
from jaxclr.interop.parts import Parts
from jaxclr.interop.tables import writer_of
from jaxclr.runs.digests import digests
from jaxclr.runs.files import locked, writing

Number = Literal["float32", "float16"]

BATCH = 250  # images embedded at once, as in evaluation
_NO_MATTER = ("mean", "std", "memory_limit", "workers")  # for what is embedded


class Some(NamedTuple):
    """Some images of a split.

    Attributes:
      images: uint8 [n, H, W, C].
      labels: int32 [n], -1 where there are none.
      names: their files, or their split and place where there are none.
      seen: images of the split up to here, damaged ones included.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    seen: int


def open_data(loaded: Loaded, data: Data) -> Dataset:
    """The splits of a data source whose images an encoder takes.

    Raises:
      UserError: the data cannot be had, or have other channels than the encoder takes.
    """
    # Images are normalised as the encoder's were, whatever theirs are.
    dataset = load_data(dataclasses.replace(data, mean=None, std=None))
    got = dataset.train.channels
    if got != loaded.channels:
        wanted = {1: "gray", 3: "rgb"}.get(loaded.channels)
        remedy = f"set --data.channels {wanted}" if wanted else "take other data"
        raise UserError(
            f"'{data.source}' has images of {got} channel(s), the encoder takes "
            f"{loaded.channels}; {remedy}."
        )
    return dataset


def embed(
    loaded: Loaded,
    data: Data,
    out: pathlib.Path,
    *,
    dtype: Number = "float32",
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, count: None,
) -> dict[str, int]:
    """Writes representations of all images, as evaluation sees them, with names and labels.

    Rows are written to OUT.part/ at least every ten seconds. At the end OUT is written from them,
    and OUT.part is removed. After an interruption the same call continues; the rows are the same as
    without.

    Args:
      loaded: the encoder.
      data: what to embed; its mean and std are not used, but the run's.
      out: file that ends in .npz or .parquet; see `tables`.
      dtype: of the numbers.
      overwrite: replace a file of that name, and start anew if something else was interrupted.
      report: told how many images are done, of how many.

    Returns:
      Rows by split; damaged images are left out where data.skip_corrupt says so.

    Raises:
      UserError: the file exists or cannot be written, data and encoder do not fit each other, or a
        representation is not finite in that type.
    """
    write = writer_of(out)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Replace it with --overwrite, or give another --out.")
    dataset = open_data(loaded, data)
    splits = {
        name: split
        for name, split in (("train", dataset.train), ("test", dataset.test))
        if split is not None
    }
    count = sum(split.size for split in splits.values())
    batch = min(BATCH, max(split.size for split in splits.values()))
    size = data.image_size or loaded.size
    if size is None and isinstance(dataset.train, Stream):
        raise UserError(
            "The encoder takes images of any size, and streamed ones may differ; set "
            "--data.image-size."
        )
    # By value, not by name: a run may be trained on, and a folder moved.
    job = {
        **{
            f"data.{name}": value
            for name, value in dataclasses.asdict(data).items()
            if name not in _NO_MATTER
        },
        "images": {name: split.size for name, split in splits.items()},
        "encoder": f"{zlib.crc32(str(digests(loaded.variables)).encode()):08x}",
        "step": loaded.step,
        "dtype": dtype,
    }
    folder = out.with_name(f"{out.name}.part")
    with writing(out.parent), locked(folder / ".lock"):
        if overwrite:
            _discard(folder, job)
        with Parts(folder, job) as parts:
            before = 0
            for name, split in splits.items():
                for some in _batches(split, name, size, batch, parts.seen(name)):
                    values = _represent(loaded, some, batch, dtype)
                    parts.append(name, values, some.labels, some.names, seen=some.seen)
                    report(before + some.seen, count)
                before += split.size
        if not parts.rows:
            raise UserError(f"'{data.source}' holds no image that can be read.")
        whole = folder / f"whole{out.suffix}"
        write(whole, parts, dataset.classes)
        os.replace(whole, out)
        parts.remove()
    return parts.rows


def _represent(loaded: Loaded, some: Some, batch: int, dtype: Number) -> np.ndarray:
    """Representations [n, F] of the type."""
    full = some.images[np.arange(batch) % len(some.images)]  # the last are fewer
    with np.errstate(over="ignore"):
        values = np.asarray(loaded.encode(full))[: len(some.images)].astype(dtype)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        remedy = (
            "set --dtype float32"
            if dtype == "float16"
            else "the run has diverged, or its checkpoint is not one of it"
        )
        raise UserError(
            f"The representation of '{some.names[bad[0]]}' is not finite in {dtype}; {remedy}."
        )
    return values


def _batches(
    split: Split | Stream, name: str, size: int | None, batch: int, start: int
) -> Iterator[Some]:
    """The images of a split from one on, at most `batch` at a time."""
    if isinstance(split, Split):
        for first in range(start, split.size, batch):
            last = min(first + batch, split.size)
            labels = (
                np.full(last - first, -1, np.int32)
                if split.labels is None
                else split.labels[first:last]
            )
            rows = range(first, last)
            names = [f"{name} {row}" if split.names is None else split.names[row] for row in rows]
            yield Some(split.images[first:last], labels, names, last)
        return
    for rows in split.plain(size, batch=batch, indices=range(start, split.size)):
        asked = np.arange(start, start + len(rows.made))
        start += len(rows.made)
        kept = np.flatnonzero(rows.indices == asked)
        if len(kept):
            images = np.stack([rows.made[row][0] for row in kept])
            yield Some(images, rows.labels[kept], [rows.names[row] for row in kept], start)


def _discard(folder: pathlib.Path, job: dict) -> None:
    """Forgets an unfinished embedding of something else."""
    try:
        Parts(folder, job).__exit__()
    except UserError:
        for path in folder.iterdir():
            if path.name != ".lock":
                path.unlink()
