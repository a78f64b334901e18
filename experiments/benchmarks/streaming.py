"""Every loss, streamed and dense: the memory that streaming saves, and its cost in time.

    python experiments/benchmarks/streaming.py [--rows 1024] [--only NAME ...] [--out FILE.json]

The losses are those of tests/losses/battery.py, with its hyper-parameters, value and gradient in
float32. Streamed is what "auto" takes for many pairs; dense forms all logits, and for functions of
pairs keeps one tile of all pairs for the gradient instead of recomputing it. Losses without pairs
are left out, because both programs are the same.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import numpy as np
import rich.table
import tyro
from measure import Output, machine, mebibytes, milliseconds, spread, verdict

from jaxclr.affinity import logsumexp, pairs

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "losses"))
from battery import Entry, entries

BAR = 1.2  # as often the time of the dense form
ALL = 2**40


@dataclasses.dataclass(frozen=True)
class Options(Output):
    """Every loss, a tile at a time against all of its pairs at once."""

    rows: int = 1024
    """Rows of a view."""

    width: int = 128
    """Of the embeddings."""

    repeats: int = 7
    """Runs of each."""

    only: tuple[str, ...] = ()
    """Names of the battery's entries; all if none are given."""


def main(options: Options) -> None:
    chosen = [entry for entry in entries() if not options.only or entry.name in options.only]
    results = [result for entry in chosen if (result := compare(entry, options)) is not None]
    record = {
        "machine": machine(),
        "rows": options.rows,
        "width": options.width,
        "results": results,
    }
    options.tell(record, [table(record)])


@contextlib.contextmanager
def dense() -> Iterator[None]:
    """Losses that are compiled in here form all their pairs."""
    with (
        mock.patch.object(logsumexp, "_DENSE_LOGITS", ALL),
        mock.patch.object(pairs, "TILE", ALL),
        mock.patch.object(jax, "checkpoint", lambda function: function),
    ):
        yield


def compare(entry: Entry, options: Options) -> dict[str, Any] | None:
    """Time and temporaries of a loss in both forms; None if they are one program."""
    arrays = [
        array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
        for array in entry.arrays(rows=options.rows, width=options.width)
    ]
    streamed = compiled(entry, arrays)
    with dense():
        whole = compiled(entry, arrays)
    if streamed.as_text() == whole.as_text():
        return None
    forms = {"streamed": streamed, "dense": whole}
    calls = {name: functools.partial(form, *arrays) for name, form in forms.items()}
    times = milliseconds(calls, options.repeats)
    ratios = [one / other for one, other in zip(times["streamed"], times["dense"], strict=True)]
    return {
        "loss": entry.name,
        "ms": {name: spread(values) for name, values in times.items()},
        "slower": spread(ratios),
        "temporary_mib": {name: mebibytes(form) for name, form in forms.items()},
    }


def compiled(entry: Entry, arrays: list[np.ndarray]) -> jax.stages.Compiled:
    """Value and gradient of a loss, always traced anew."""
    loss = lambda *arrays: entry(*arrays)
    return jax.jit(jax.value_and_grad(loss, argnums=entry.floats)).lower(*arrays).compile()


def table(record: Mapping[str, Any]) -> rich.table.Table:
    """The losses, the slowest to stream first."""
    shown = rich.table.Table(
        f"{record['rows']} x {record['width']}",
        "streamed, ms",
        "dense, ms",
        "ratio",
        f"at most {BAR}",
        "MiB streamed",
        "MiB dense",
    )
    for result in sorted(record["results"], key=lambda result: -result["slower"].median):
        ms, mib, slower = result["ms"], result["temporary_mib"], result["slower"]
        met = verdict(slower.median, most=BAR).partition(": ")[2]
        figures = (str(ms["streamed"]), str(ms["dense"]), str(slower), met)
        shown.add_row(result["loss"], *figures, f"{mib['streamed']:.1f}", f"{mib['dense']:.1f}")
    return shown


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
