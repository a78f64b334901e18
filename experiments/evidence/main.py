"""The commands of evidence.py."""

import functools
import json
import pathlib
import random
import signal
import sys
from typing import Annotated

import rich.console
import rich.table
import tyro

from jaxclr.errors import UserError
from jaxclr.processes.signals import Stopped

from . import pages, running, statistics, studies
from .results import Results, row_of

DOCS = pathlib.Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "evidence"
RUNS = pathlib.Path("runs/evidence")
CHECKED = (
    *("sim_affinity", "sim_whitening", "sim_trace", "sim_trace_plain"),
    *("simclr", "byol", "barlow_twins", "vicreg"),
)
FIGURES = ("1 label", "5 labels", "10 labels", "kNN 20")
MARGIN = 4.0  # standard deviations over seeds within which a repeated figure must lie

console = rich.console.Console(soft_wrap=True, highlight=False)
Names = Annotated[tuple[str, ...], tyro.conf.Positional]


def run(
    names: Names = (),
    /,
    budget: float = 1e9,
    methods: tuple[str, ...] = (),
    workers: int = 0,
    tfds: str | None = None,
    runs: pathlib.Path = RUNS,
    results: pathlib.Path = RESULTS,
    dry: bool = False,
) -> None:
    """Runs the rows that have no result yet, after saying which and about how long.

    Args:
      names: studies; none for all.
      budget: hours.
      methods: methods to run; none for all.
      workers: rows at a time, each on a core of its own; 0 for one on every core.
      tfds: folder of the data sets that TFDS has prepared.
      runs: folder for runs in progress.
      results: folder of the results.
      dry: say what would run, and end.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(running.STOPPED))
    found, places = Results(results), running.cores()[: workers or None]
    for name in names:
        if name not in studies.STUDIES:
            raise UserError(f"No study is called {name}; there are {', '.join(studies.STUDIES)}.")
    names = names or tuple(studies.STUDIES)
    fitting = functools.partial(running.plan, results=found, workers=len(places), methods=methods)
    # Rows that wait for a search are estimated with the settings of their recipe.
    chosen = studies.chosen_from(found.of)
    supposed = lambda data, method: chosen(data, method) or {}
    estimates = fitting({name: studies.STUDIES[name](supposed) for name in names}, budget=budget)
    table = rich.table.Table("study", "finished", "to run", "core hours", "over the budget")
    for e in estimates:
        table.add_row(e.study, *map(str, (e.finished, len(e.rows), round(e.hours, 1), e.left)))
    console.print(table)
    hours = sum(estimate.hours for estimate in estimates) / len(places)
    console.print(f"About {hours:.1f} hours, {len(places)} rows at a time.")
    if dry:
        return
    start = lambda row, core: running.Process(row, core, runs, tfds)
    for name in names:
        rows = studies.STUDIES[name](studies.chosen_from(found.of))  # by the searches until now
        (estimate,) = fitting({name: rows}, budget=budget)
        running.run_all(estimate.rows, start, found, places=places, say=console.print)
        budget -= estimate.hours / len(places)


def tables(results: pathlib.Path = RESULTS, docs: pathlib.Path = DOCS) -> None:
    """Writes docs/evidence.md and its figures from the results alone."""
    pages.write(Results(results), docs)


def check(runs: pathlib.Path = RUNS, results: pathlib.Path = RESULTS, seed: int = 0) -> None:
    """Repeats one seed of eight methods on digits and compares with the committed figures."""
    known, again = Results(results).of("digits"), Results(runs / "check")
    keys = [key for key in known if key[1] in CHECKED and key[3] == seed]
    for key in keys:
        again.remove(key)
    start = lambda row, core: running.Process(row, core, runs / "check", None)
    rows = [row_of(known[key]) for key in keys]
    running.run_all(rows, start, again, places=running.cores(), say=console.print)
    bounds = {name: MARGIN * spread_over_seeds(known.values(), name) for name in FIGURES}
    titles = (f"{name}, within {100 * bound:.1f}" for name, bound in bounds.items())
    table, outside = rich.table.Table("method", *titles), 0
    for key in keys:
        one, other = known[key]["figures"], again.of("digits")[key]["figures"]
        cells = (f"{100 * one[name]:.1f}, now {100 * other[name]:.1f}" for name in bounds)
        table.add_row(key[1], *cells)
        outside += sum(abs(one[name] - other[name]) > bound for name, bound in bounds.items())
    console.print(table)
    if outside or len(keys) < len(CHECKED):
        missing = len(CHECKED) - len(keys)
        sys.exit(f"{outside} figures are outside their bounds; {missing} methods have no results.")


def repeat(
    name: Annotated[str, tyro.conf.Positional] = "",
    /,
    random_row: Annotated[bool, tyro.conf.arg(name="random")] = False,
    tfds: str | None = None,
    runs: pathlib.Path = RUNS,
    results: pathlib.Path = RESULTS,
) -> None:
    """Deletes a row and runs it again: on the same machine it has the same figures, bit for bit.

    Args:
      name: of the row, STUDY/METHOD-SEED; see --random.
      random_row: take a row by a random number.
      tfds: folder of the data sets that TFDS has prepared.
      runs: folder for runs in progress.
      results: folder of the results.
    """
    found = Results(results)
    rows = {row_of(record).name: record for record in found.everything()}
    if random_row:
        name = random.SystemRandom().choice(sorted(rows))
    if name not in rows:
        raise UserError(f"No result is called '{name}'; give --random or one of them.")
    before = rows[name]
    row = row_of(before)
    console.print(f"{name}: {json.dumps(before['figures'])}")
    found.remove(row.key)
    start = lambda row, core: running.Process(row, core, runs / "repeat", tfds)
    try:
        running.run_all([row], start, found, places=running.cores()[:1], say=console.print)
    finally:
        if not found.finished(row):
            found.write(before)
    after = found.of(row.study)[row.key]
    same = all(before[part] == after[part] for part in ("figures", "curves"))
    console.print(f"{name}: {json.dumps(after['figures'])}")
    console.print("The figures are the same." if same else "The figures DIFFER.")
    if not same:
        where = "" if before["machine"] == after["machine"] else f" It was {before['machine']}."
        sys.exit(f"The row was measured with {before['versions']}.{where}")


def work(task: Annotated[pathlib.Path, tyro.conf.Positional], /) -> None:
    """Measures one row; the other commands call this."""
    from .worker import work as work_on  # it imports JAX, which takes seconds

    work_on(task)


def main() -> None:
    commands = {"run": run, "tables": tables, "check": check, "repeat": repeat, "work": work}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="evidence.py")
    except (Stopped, KeyboardInterrupt) as error:
        print(str(error) or "Stopped; the same command continues.", file=sys.stderr)
        sys.exit(running.STOPPED)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def spread_over_seeds(records, figure: str) -> float:
    """The standard deviation over seeds of a figure, pooled over methods; at least half a point."""
    by_method: dict[str, list[float]] = {}
    for record in records:
        by_method.setdefault(record["method"], []).append(record["figures"].get(figure, 0.0))
    spreads = [statistics.mean_and_spread(v)[1] for v in by_method.values() if len(v) > 1]
    return max([0.005, (sum(s * s for s in spreads) / max(len(spreads), 1)) ** 0.5])
