"""The arrays of a checkpoint on disk: a TensorStore database in OCDBT format.

Every process writes a database of its own, ocdbt.process_I. Their merged database refers to their
files, and its manifest is written last.
"""

import pathlib
from collections.abc import Iterator

import numpy as np
import tensorstore as ts

_PART = "ocdbt.process_"
_ARRAY = "/.zarray"


def is_merged(folder: pathlib.Path) -> bool:
    """Whether the databases of all processes were merged."""
    return (folder / "manifest.ocdbt").is_file()


def merge(folder: pathlib.Path) -> None:
    """Merges the databases of all processes, unless it is done.

    Orbax does it too, but finds none, and raises no error, if a folder above is named as a pattern
    of glob: lr=[0.1].
    """
    parts = [path for path in folder.iterdir() if path.name.startswith(_PART)]
    if is_merged(folder) or not parts:
        return
    context, transaction = ts.Context(), ts.Transaction(atomic=True)
    merged = _open(folder, context).with_transaction(transaction)
    copies = [_open(part, context).experimental_copy_range_to(merged) for part in parts]
    for copy in copies:
        copy.result()
    transaction.commit_sync()


def read(folder: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each array in the merged database, and the array.

    Raises:
      ValueError: there is no merged database, or it is damaged.
    """
    if not is_merged(folder):
        raise ValueError("its arrays have no manifest")
    context = ts.Context()
    for key in _open(folder, context).list().result():
        if key.endswith(_ARRAY.encode()):
            name = key.decode().removesuffix(_ARRAY)
            array = {"driver": "zarr", "kvstore": {**_spec(folder), "path": f"{name}/"}}
            yield name, ts.open(array, context=context).result().read().result()


def _open(folder: pathlib.Path, context: ts.Context) -> ts.KvStore:
    return ts.KvStore.open(_spec(folder), context=context).result()


def _spec(folder: pathlib.Path) -> dict[str, object]:
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.absolute()}/"}}
