"""The arrays of a checkpoint on disk or in gs://: a TensorStore database in OCDBT format.

Every process writes a database of its own, ocdbt.process_I. Their merged database refers to their
files, and its manifest is written last.
"""

from collections.abc import Iterator

import numpy as np
import tensorstore as ts

from jaxclr.paths import Path, in_bucket
from jaxclr.runs.files import names
from jaxclr.runs.readers import is_there

_PART = "ocdbt.process_"
_ARRAY = "/.zarray"


def is_merged(folder: Path) -> bool:
    """Whether the databases of all processes were merged."""
    return is_there(folder / "manifest.ocdbt")


def merge(folder: Path) -> None:
    """Merges the databases of all processes, unless it is done.

    Orbax does it too, but finds none, and raises no error, if a folder above is named as a pattern
    of glob: lr=[0.1].
    """
    parts = [folder / name for name in names(folder) if name.startswith(_PART)]
    if is_merged(folder) or not parts:
        return
    context, transaction = ts.Context(), ts.Transaction(atomic=True)
    merged = _open(folder, context).with_transaction(transaction)
    copies = [_open(part, context).experimental_copy_range_to(merged) for part in parts]
    for copy in copies:
        copy.result()
    transaction.commit_sync()


def read(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
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


def _open(folder: Path, context: ts.Context) -> ts.KvStore:
    return ts.KvStore.open(_spec(folder), context=context).result()


def _spec(folder: Path) -> dict[str, object]:
    if in_bucket(folder):
        return {"driver": "ocdbt", "base": f"{folder}/"}
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.absolute()}/"}}
