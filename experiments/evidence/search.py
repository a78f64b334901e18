"""The search for hyper-parameters: the same few points for every method.

The learning rate and one hyper-parameter of the method's own, the first of OWN that it has, are
multiplied by the factors of POINTS. A run is judged on held-out training images, with a seed that
no reported run has. The point with the best figure is taken; of equals, the first.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxclr.methods import Method

from .grid import VALIDATION, Row, recipe, value_at

POINTS = ((1.0, 1.0), (0.5, 0.5), (0.5, 2.0), (2.0, 0.5), (2.0, 2.0))
SEED = 1000
RATE = "optimizer.learning_rate"
OWN = (
    "temperature",
    "temperature_negative",
    "pairwise_weight",
    "covariance",
    "off_diagonal",
    "covariance_weight",
    "correlation_weight",
    "penalty",
    "salient_weight",
    "uniformity",
    "t_negative",
    "weight",
    "invariance",
    "whitening_iterations",
    "eps",
    "target.momentum",
    "predictor.hidden",
)


def own(method: Method) -> str:
    """The name of the hyper-parameter that is searched."""
    return next(name for name in OWN if value_at(method, name) is not None)


def trials(
    study: str, data: str, methods: Iterable[str], changes: Mapping[str, Any] | None = None
) -> list[Row]:
    """The rows of a search, method by method; `changes` are of all trials."""
    rows = []
    for method in methods:
        base = recipe(data, method)
        name = own(base.method)
        path = f"method.{name}"
        for rate, factor in POINTS:
            values = {
                RATE: value_at(base, RATE) * rate,
                path: scaled(path, value_at(base, path), factor),
            }
            setting = f"rate x{rate:g}, {name.rpartition('.')[2]} x{factor:g}"
            everything = {**(changes or {}), **values}
            row = Row(study, method, setting, data + VALIDATION, SEED, changes=everything)
            rows.append(row)
    return rows


def scaled(path: str, value: Any, factor: float) -> Any:
    """A value times a factor; of a momentum, the rest to 1; a count stays at least 1."""
    if path.endswith("momentum"):
        return round(1 - (1 - value) * factor, 6)
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor


def best(rows: Iterable[Row], records: Mapping[Any, Mapping[str, Any]], figure: str) -> Any:
    """What the best trial of a method changes; None if some have no result.

    Args:
      rows: the trials of one method.
      records: results by the key of their row.
      figure: the figure that judges. Trials that failed come last.
    """
    rows = list(rows)
    if not all(row.key in records for row in rows):
        return None
    score = lambda row: records[row.key]["figures"].get(figure, -1.0)
    changes = max(rows, key=score).changes
    return {path: changes[path] for path in changes if path == RATE or path[7:] in OWN}
