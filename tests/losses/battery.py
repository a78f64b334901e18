"""An entry of the battery describes a loss under one setting; test_battery.py tests all entries.

An entry names its loss, its definition in NumPy on the same arrays, and the checks that do not
apply to it.
"""

import dataclasses
import importlib
import inspect
import json
import pathlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ROWS, WIDTH = 16, 6
GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "objectives.json").read_text())


def views(count):
    """Makes so many views [rows, width] of the same images, neither equal nor unrelated."""

    def make(generator, rows, width):
        common = generator.normal(size=(rows, width))
        return tuple(common + 0.5 * generator.normal(size=(rows, width)) for _ in range(count))

    return make


def stacked(count):
    """Makes one array [count, rows, width] of views."""
    return lambda generator, rows, width: (np.stack(views(count)(generator, rows, width)),)


def golden_view(v, rows=8, width=6):
    """The v-th input [rows, width] of the golden values."""
    i, j = np.arange(rows)[:, None], np.arange(width)[None, :]
    common = np.sin(0.9 * (i + 1) + 0.37 * (j + 1) * (i % 3 + 1))
    return common + 0.35 * np.cos(1.3 * (v + 1) * (i + 1) + 0.7 * (v + 2) * (j + 1))


TWO_VIEWS = views(2)


@dataclasses.dataclass(frozen=True, eq=False)
class Golden:
    """A row of golden/objectives.json: what the official implementation returns for these arrays.

    loss takes the arrays alone; None is the entry's with its settings. The row's gradient norms are
    those at the arrays with the indices `differentiated`, by default the first ones.
    """

    name: str
    arrays: Sequence[np.ndarray]
    loss: Callable | None = None
    differentiated: Sequence[int] | None = None

    @property
    def row(self):
        (row,) = [row for row in GOLDEN if row["name"] == self.name]
        return row


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A loss under given hyper-parameters.

    Attributes:
      name: unique; the name of the loss, then "-" and the variant if there are several.
      loss: called with the arrays, the settings and axis_name.
      oracle: its value from the same arrays in NumPy float64, written from the formula.
      settings: hyper-parameters.
      make: (generator, rows, width) -> the arrays of a batch of so many rows.
      spread: for each array the axis that runs over the batch, or None if it is whole on every
        device.
      stopped: indices of the float arrays that get no gradient.
      golden: rows of the golden values.
      rows: batch sizes to try.
      exempt: for each check of `test_battery.CHECKS` that does not apply, the reason in a few
        words. Every other check applies, and a test holds that the exempted ones would fail.
      bfloat16_tolerance: relative.
      positive: hyper-parameters for which zero is refused too.
      signed: hyper-parameters that may be negative.
    """

    name: str
    loss: Callable
    oracle: Callable
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    make: Callable = TWO_VIEWS
    spread: tuple[int | None, ...] | None = None
    stopped: tuple[int, ...] = ()
    golden: tuple[Golden, ...] = ()
    rows: tuple[int, ...] = (ROWS, 7, 1)
    exempt: dict[str, str] = dataclasses.field(default_factory=dict)
    bfloat16_tolerance: float = 0.03
    positive: tuple[str, ...] = ("temperature", "eps", "logit_divisor")
    signed: tuple[str, ...] = ()

    def __call__(self, *arrays, axis_name=None):
        return self.loss(*arrays, **self.settings, axis_name=axis_name)

    def arrays(self, seed=0, rows=ROWS, width=WIDTH):
        """A batch: floats in float64."""
        return tuple(self.make(np.random.default_rng(seed), rows, width))

    @property
    def axes(self):
        """For each array the axis that runs over the batch, or None."""
        return self.spread or (0,) * len(self.arrays())

    @property
    def floats(self):
        """Indices of the arrays that hold floats."""
        return tuple(i for i, a in enumerate(self.arrays()) if np.issubdtype(a.dtype, np.floating))

    @property
    def takes_implementation(self):
        return "implementation" in inspect.signature(self.loss).parameters

    @property
    def hyper_parameters(self):
        """Names of the real hyper-parameters: those of the signature and of the settings."""
        parameters = inspect.signature(self.loss).parameters.values()
        known = {parameter.name: parameter.default for parameter in parameters} | self.settings
        real = {name for name, value in known.items() if isinstance(value, float)}
        return sorted(real | (set(self.positive) & known.keys()))


def entries():
    """All entries of all files in entries/."""
    package = importlib.import_module("entries")
    modules = pkgutil.walk_packages(package.__path__, "entries.")
    names = [module.name for module in modules if not module.ispkg]
    found = [entry for name in names for entry in importlib.import_module(name).ENTRIES]
    assert len({entry.name for entry in found}) == len(found)
    return tuple(found)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def lse(a):
    """Log-sum-exp of each row; -inf entries are left out."""
    top = a.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(a - top).sum(axis=1, keepdims=True)))[:, 0]


def softmax(a):
    return np.exp(a - lse(a)[:, None])


def cross_entropy(a):
    """Mean cross-entropy of rows whose positive is on the diagonal."""
    return np.mean(lse(a) - np.diag(a))


def cosine(p, z):
    return np.sum(unit(p) * unit(z), axis=-1)


def nt_xent(z1, z2, temperature):
    z = unit(np.concatenate([z1, z2]))
    a = z @ z.T / temperature
    positive = np.diag(np.roll(a, len(z1), axis=1))
    np.fill_diagonal(a, -np.inf)
    return np.mean(lse(a) - positive)
