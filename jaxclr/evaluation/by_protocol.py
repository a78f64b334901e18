"""The record of a protocol on a run's data or on others."""

import dataclasses
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
import rich.text

from jaxclr.data import Data
from jaxclr.errors import UserError
from jaxclr.evaluation.protocols import Protocol
from jaxclr.evaluation.subject import Subject, labeled_splits
from jaxclr.runs import parts
from jaxclr.steps.state import State
from jaxclr.text import displayable


def evaluate(subject: Subject, protocol: Protocol, *, seeds: int = 1) -> dict[str, Any]:
    """The figures of a protocol.

    Args:
      subject: the run's encoder, and its own data or others; see `on_data`.
      protocol: with its settings.
      seeds: number of seeds, from 0; a deterministic protocol is run once.

    Returns:
      A record: settings; mean, deviation (n - 1) and values of each figure; what was chosen for
      each seed.

    Raises:
      UserError: protocol, data and encoder do not fit each other.
    """
    _check_finite(subject.state)
    if protocol.needs_labels:
        labeled_splits(subject.dataset)
    tried = list(range(seeds if protocol.is_random else 1))
    results = [protocol.run(subject, seed) for seed in tried]
    values = {
        name: [value for result in results for value in result.figures[name]]
        for name in results[0].figures
    }
    return {
        "protocol": type(protocol).__name__,
        "settings": dataclasses.asdict(protocol),
        "data": {"source": subject.dataset.name, **parts.describe(subject.data, Data)},
        "step": int(subject.state.step),
        "seeds": tried,
        "train_images": subject.train.size,
        "test_images": 0 if subject.test is None else subject.test.size,
        "percent": protocol.percent,
        "figures": {name: _summary(some) for name, some in values.items()},
        "chosen": [dict(result.chosen) for result in results],
    }


def protocol_table(record: dict[str, Any]) -> rich.table.Table:
    """The record as a table: a line for each figure, mean and deviation over draws."""
    sizes = f"{record['train_images']} training and {record['test_images']} test images"
    where = f"{record['data']['source']}, {sizes}{', in %' * record['percent']}"
    title = f"{record['protocol']} on {where}"
    result = rich.table.Table(
        title=rich.text.Text(displayable(title)),
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    columns: dict[str, rich.console.JustifyMethod] = {
        "": "left",
        "mean ± std": "right",
        "draws": "right",
        "chosen on training data": "left",
    }
    for column, side in columns.items():
        wraps = column.startswith("chosen")
        result.add_column(column, no_wrap=not wraps, overflow="fold", justify=side)
    for name, figure in record["figures"].items():
        scale, digits = (100, 1) if record["percent"] else (1, 4)
        number = f"{scale * figure['mean']:.{digits}f}"
        if len(figure["values"]) > 1:
            number += f" ± {scale * figure['std']:.{digits}f}"
        result.add_row(name, number, str(len(figure["values"])), _choices(record["chosen"], name))
    return result


def _check_finite(state: State) -> None:
    """Raises UserError if parameters or statistics are not finite.

    Features may hide it: XLA's fast maximum on CPUs takes ReLU(NaN) as 0.
    """
    leaves = jax.tree.leaves(jax.device_get((state.params, state.batch_stats)))
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise UserError(
            f"The parameters or statistics of step {int(state.step)} are not finite (NaN), so "
            "there is nothing to evaluate. Train again with a lower learning rate, or with "
            "--clip-norm."
        )


def _summary(values: list[float]) -> dict[str, Any]:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "values": values}


def _choices(chosen: list[dict[str, Any]], figure: str) -> str:
    """What was chosen for a figure, each value once."""
    seen: dict[str, list[Any]] = {}
    for choice in chosen:
        for name, value in choice.get(figure, {}).items():
            seen.setdefault(name, []).append(value)
    return "; ".join(
        f"{name} {', '.join(f'{v:g}' for v in sorted(set(values)))}"
        for name, values in seen.items()
    )
