"""Finished embeddings as one file, .npz or .parquet, which is written in a few megabytes whatever the number of rows."""

import itertools
import json
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from jaxclr.errors import UserError
from jaxclr.interop.parts import Parts

Writer = Callable[[pathlib.Path, Parts, Sequence[str]], None]
GROUP = 8192  # rows that are written at a time


def writer_of(path: pathlib.Path) -> Writer:
    """The writer for a file of that name.

    Raises:
      UserError: the name ends otherwise.
    """
    if path.suffix not in _WRITERS:
        raise UserError(f"--out {path} ends in '{path.suffix}'; give a name that ends in {' or '.join(_WRITERS)}.")
    return _WRITERS[path.suffix]


def write_npz(path: pathlib.Path, parts: Parts, classes: Sequence[str]) -> None:
    """Arrays embeddings [N, F], labels int32 [N] (-1: none), names [N], splits [N], classes [C], as numpy.savez has them."""
    count = sum(parts.rows.values())
    splits = itertools.chain.from_iterable(itertools.repeat(name, rows) for name, rows in parts.rows.items())
    text = lambda texts: np.dtype((np.str_, max(map(len, texts), default=1)))
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, "embeddings", np.dtype(parts.job["dtype"]), (count, parts.width), parts.embeddings(GROUP))
        _add(archive, "labels", np.dtype(np.int32), (count,), [parts.labels()])
        _add(archive, "names", text(parts.names()), (count,), _groups(parts.names()))
        _add(archive, "splits", text(parts.rows), (count,), _groups(splits))
        _add(archive, "classes", text(classes), (len(classes),), [classes])


def write_parquet(path: pathlib.Path, parts: Parts, classes: Sequence[str]) -> None:
    """Columns name, split, label (null: none) and embedding (a list of F numbers), a row group at a time.

    The metadata of the schema hold "jaxclr": as JSON, what was embedded and the names of the classes.
    """
    import pyarrow
    import pyarrow.parquet

    labels, names = parts.labels(), parts.names()
    splits = np.repeat(np.arange(len(parts.rows), dtype=np.int32), list(parts.rows.values()))
    number = pyarrow.from_numpy_dtype(np.dtype(parts.job["dtype"]))
    told = json.dumps({**parts.job, "classes": list(classes)})
    schema = pyarrow.schema(
        {
            "name": pyarrow.string(),
            "split": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            "label": pyarrow.int32(),
            "embedding": pyarrow.list_(number, parts.width),
        },
        metadata={"jaxclr": told},
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        start = 0
        for some in parts.embeddings(GROUP):
            rows = slice(start, start := start + len(some))
            columns = [
                pyarrow.array(itertools.islice(names, len(some)), pyarrow.string()),
                pyarrow.DictionaryArray.from_arrays(splits[rows], pyarrow.array(list(parts.rows))),
                pyarrow.array(labels[rows], mask=labels[rows] < 0),
                pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(some.reshape(-1)), parts.width),
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _add(archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], groups: Iterable) -> None:
    """Adds an array, of which some rows at a time are in memory."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for group in groups:
            file.write(np.ascontiguousarray(group, dtype).tobytes())


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while group := list(itertools.islice(texts, GROUP)):
        yield group


_WRITERS: dict[str, Writer] = {".npz": write_npz, ".parquet": write_parquet}
