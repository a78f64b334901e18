"""Representations of all examples of a data source, in a file."""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from jaxclr.data import Arrays, Data, Dataset, Source, Stream
from jaxclr.data import load as load_data
from jaxclr.errors import UserError
from jaxclr.evaluation.subject import check_channels
from jaxclr.interop.loading import Loaded
from jaxclr.interop.partial import PartialTable
from jaxclr.interop.tables import writer_of
from jaxclr.runs import parts
from jaxclr.runs.digests import digests
from jaxclr.runs.files import locked, writing
from jaxclr.steps.examples import BATCH, Examples, apply_in_batches, batches

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
    out: pathlib.Path,
    *,
    dtype: Number = "float32",
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, count: None,
) -> dict[str, int]:
    """Writes representations of all examples, as evaluation sees them, with names and labels.

    Rows are appended to OUT.part/ as they are made, and progress is recorded every ten seconds.
    When all rows are there, OUT is written from them, and OUT.part is removed. The same call after
    an interruption continues from the record; the file is the same as without an interruption.

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
    folder = out.with_name(f"{out.name}.part")
    with writing(out.parent), locked(folder / ".lock"):
        if overwrite:
            _discard(folder, job)
        with PartialTable(folder, job) as rows_so_far:
            before = 0
            for name, split in splits.items():
                done = rows_so_far.seen(name)
                rows = range(done, split.size)
                for some in batches(split, size=size, batch=batch, rows=rows):
                    names = some.names or [f"{name} {index}" for index in some.indices]
                    values = _represent(loaded, some, names, batch, dtype)
                    seen = done + some.seen
                    rows_so_far.append(name, values, some.labels, names, seen=seen)
                    report(before + seen, count)
                before += split.size
        if not rows_so_far.rows:
            raise UserError(f"'{dataset.name}' holds no image that can be read.")
        whole = folder / f"whole{out.suffix}"
        write(whole, rows_so_far, dataset.classes)
        os.replace(whole, out)
        rows_so_far.remove()
    return rows_so_far.rows


def _represent(
    loaded: Loaded, some: Examples, names: Sequence[str], batch: int, dtype: Number
) -> np.ndarray:
    """Representations [n, F] of the type."""
    with np.errstate(over="ignore"):
        values = apply_in_batches(loaded.encode, some.data, batch=batch).astype(dtype)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        diverged = "the run has diverged, or its checkpoint belongs to another run"
        remedy = "set --dtype float32" if dtype == "float16" else diverged
        name = names[bad[0]]
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
