"""The table of the runs against the clock, in Markdown."""

import io
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

SHOWN = (10, 20, 50, 100)  # epochs on the way whose kNN is shown

Record = Mapping[str, Any]


def write_table(out: pathlib.Path) -> str:
    """The table of all results in OUT/results and their hardware; also written to OUT/table.md."""
    records = [json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))]
    text = io.StringIO()
    rich.console.Console(file=text, width=200).print(table(records))
    lines = [line.strip() for line in text.getvalue().splitlines()]
    written = "\n".join([*filter(None, lines), "", *conditions(records)]) + "\n"
    (out / "table.md").write_text(written)
    return written


def table(records: Sequence[Record]) -> rich.table.Table:
    """A method a row: kNN during training and after, linear probe, seconds; mean ± std of seeds."""
    epochs = [
        epoch for epoch in SHOWN if any(str(epoch) in record["knn_by_epoch"] for record in records)
    ]
    on_the_way = (f"kNN at {epoch}" for epoch in epochs)
    headers = (
        "method",
        "seeds",
        *on_the_way,
        "kNN, last epoch",
        "linear",
        "seconds",
        "of them compiling",
    )
    shown = rich.table.Table(*headers, box=rich.box.MARKDOWN)
    for method in dict.fromkeys(record["method"] for record in records):
        mine = [record for record in records if record["method"] == method]
        way = [
            [r["knn_by_epoch"][str(e)] for r in mine if str(e) in r["knn_by_epoch"]] for e in epochs
        ]
        ends = [[record[name] for record in mine] for name in ("knn", "linear")]
        seconds = [
            statistics.mean(r[name] for r in mine) for name in ("seconds", "compile_seconds")
        ]
        shown.add_row(
            method,
            " ".join(str(record["seed"]) for record in mine),
            *map(_percent, (*way, *ends)),
            *(f"{value:.0f}" for value in seconds),
        )
    return shown


def conditions(records: Sequence[Record]) -> list[str]:
    """Hardware and settings of the measurements: every value that occurs among the runs."""
    runs = [
        {
            **record["machine"],
            **{
                name: record[name] for name in ("epochs", "batch_size", "k", "temperature", "calls")
            },
            "compiled programs on disk at the start": record["cache"],
            "images were stored as": record["pixels"],
        }
        for record in records
    ]
    values = {
        name: dict.fromkeys(str(run[name]) for run in runs) for name in (runs[0] if runs else ())
    }
    return [f"- {name}: {', '.join(found)}" for name, found in values.items()]


def _percent(values: Sequence[float]) -> str:
    """Mean in percent, and the deviation (n - 1) where there are several."""
    if not values:
        return ""
    deviation = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{deviation}"
