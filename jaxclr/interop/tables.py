"""Finished embeddings as one file, .npz or .parquet, which is written in a few megabytes whatever the number of rows."""

import itertools
import json
import pathlib
from collections.abc import Callable, Sequence

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
    """Arrays embeddings [N, F], labels int32 [N] (-1: none), names [N], splits [N], classes [C], uncompressed.

    NumPy copies an array that lies on disk into the archive piece by piece. Names and splits are laid out on disk first.
    """
    splits = itertools.chain.from_iterable(itertools.repeat(name, rows) for name, rows in parts.rows.items())
    np.savez(
        path,
        embeddings=parts.embeddings(),
        labels=parts.labels(),
        names=_strings(parts.folder / "names.npy", parts.names, sum(parts.rows.values())),
        splits=_strings(parts.folder / "splits.npy", lambda: splits, sum(parts.rows.values()), max(map(len, parts.rows))),
        classes=np.array(classes, np.str_),
    )


def write_parquet(path: pathlib.Path, parts: Parts, classes: Sequence[str]) -> None:
    """Columns name, split, label (null: none) and embedding (a list of F numbers), a row group at a time.

    The metadata of the schema hold "jaxclr": as JSON, what was embedded and the names of the classes.
    """
    import pyarrow
    import pyarrow.parquet

    embeddings, labels, names = parts.embeddings(), parts.labels(), parts.names()
    splits = np.repeat(np.arange(len(parts.rows), dtype=np.int32), list(parts.rows.values()))
    number = pyarrow.from_numpy_dtype(embeddings.dtype)
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
        for start in range(0, len(embeddings), GROUP):
            rows = slice(start, start + GROUP)
            flat = pyarrow.array(np.ascontiguousarray(embeddings[rows]).reshape(-1))
            known = labels[rows]
            columns = [
                pyarrow.array(itertools.islice(names, len(known)), pyarrow.string()),
                pyarrow.DictionaryArray.from_arrays(splits[rows], pyarrow.array(list(parts.rows))),
                pyarrow.array(known, mask=known < 0),
                pyarrow.FixedSizeListArray.from_arrays(flat, parts.width),
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _strings(path: pathlib.Path, texts: Callable, count: int, longest: int | None = None) -> np.ndarray:
    """Texts as an array of that many on disk."""
    longest = longest or max(map(len, texts()))
    array = np.lib.format.open_memmap(path, "w+", np.dtype((np.str_, longest)), (count,))
    for row, text in enumerate(texts()):
        array[row] = text
    return array


_WRITERS: dict[str, Writer] = {".npz": write_npz, ".parquet": write_parquet}
