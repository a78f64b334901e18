"""Finished embeddings as one file, .npz or .parquet, with some rows in memory at a time."""

import json
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jaxclr.errors import UserError, optional
from jaxclr.interop.partial import PartialTable
from jaxclr.paths import Path
from jaxclr.text import displayable, displayable_lines

Writer = Callable[[pathlib.Path, PartialTable, Sequence[str]], None]


def writer_of(path: Path) -> Writer:
    """The writer for a file name.

    Raises:
      UserError: the name ends otherwise.
    """
    if path.suffix not in _WRITERS:
        raise UserError(
            f"--out {path} ends in '{path.suffix}'; give a name that ends in "
            f"{' or '.join(_WRITERS)}."
        )
    return _WRITERS[path.suffix]


def write_npz(path: pathlib.Path, parts: PartialTable, classes: Sequence[str]) -> None:
    """Writes what numpy.savez would.

    Arrays: embeddings [N, F], labels int32 [N] (-1: none), names [N], splits [N], classes [C].
    """
    count = sum(parts.rows.values())
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("embeddings", "labels", "names", "splits"):
            shape = next(parts.column(name)).shape[1:]
            dtype = np.result_type(*(some.dtype for some in parts.column(name)))  # the longest text
            _add(archive, name, dtype, (count, *shape), parts.column(name))
        names = np.array(classes, np.str_)
        _add(archive, "classes", names.dtype, names.shape, [names])


def write_parquet(path: pathlib.Path, parts: PartialTable, classes: Sequence[str]) -> None:
    """Columns name, split, label (null: none) and embedding (a list of F numbers).

    The metadata of the schema hold "jaxclr": as JSON, what was embedded and the names of the
    classes. Bytes of names that are not UTF-8 are escaped, as Arrow's strings are UTF-8.
    """
    pyarrow, parquet = optional("pyarrow"), optional("pyarrow.parquet")
    width = next(parts.column("embeddings")).shape[1]
    number = pyarrow.from_numpy_dtype(np.dtype(parts.job["dtype"]))
    schema = pyarrow.schema(
        {
            "name": pyarrow.string(),
            "split": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            "label": pyarrow.int32(),
            "embedding": pyarrow.list_(number, width),
        },
        metadata={"jaxclr": json.dumps({**parts.job, "classes": [*map(displayable, classes)]})},
    )
    with parquet.ParquetWriter(path, schema) as writer:
        rows = map(parts.column, ("names", "splits", "labels", "embeddings"))
        for names, splits, labels, embeddings in zip(*rows, strict=True):
            columns = [
                pyarrow.array([*map(displayable_lines, names.tolist())], pyarrow.string()),
                pyarrow.array(splits.tolist(), pyarrow.string()).dictionary_encode(),
                pyarrow.array(labels, mask=labels < 0),
                pyarrow.FixedSizeListArray.from_arrays(
                    pyarrow.array(embeddings.reshape(-1)), width
                ),
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _add(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], some: Iterable
) -> None:
    """Adds an array, of which some rows at a time are in memory."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for rows in some:
            file.write(np.ascontiguousarray(rows, dtype).tobytes())


_WRITERS: dict[str, Writer] = {".npz": write_npz, ".parquet": write_parquet}
