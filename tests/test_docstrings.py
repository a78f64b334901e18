"""The examples in docstrings run, and give what they say."""

import doctest
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxclr

ROOT = pathlib.Path(jaxclr.__file__).parent
NAMES = {"jax": jax, "jnp": jnp, "np": np, "jaxclr": jaxclr, "losses": jaxclr.losses}
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if ">>> " in path.read_text()
)


# Their examples compile for more than a second each.
SLOW = {
    f"jaxclr.losses.{name}"
    for name in (
        "adaptive",
        "attraction",
        "batch_prototypes",
        "compactness",
        "consistency",
        "contrib.eeg",
        "contrib.super_resolution",
        "distillation",
        "gaussian",
        "labeled",
        "multiview",
        "prototypes",
        "redundancy",
    )
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.full) if name in SLOW else name for name in MODULES],
)
def test_examples_run(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module, extraglobs=NAMES):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_loss_has_an_example():
    docstrings = {name: value.__doc__ for name, value in vars(jaxclr.losses).items()}
    without = {name for name, text in docstrings.items() if "Needs:" in (text or "")} - {
        name for name, text in docstrings.items() if ">>> " in (text or "")
    }
    assert without == set()
