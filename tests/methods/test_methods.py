"""In every method's first steps the loss falls without collapse, and runs resume exactly."""

import dataclasses
import importlib
import io
import pathlib

import jax
import numpy as np
import pytest
import rich.console
from tiny import tiny_config

from jaxclr import training
from jaxclr.methods import METHODS
from jaxclr.runs.folder import RunFolder
from jaxclr.training import loop

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"
QUIET = rich.console.Console(file=io.StringIO())
STEPS = 30


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("methods")


# A queue and clusters, which are found again in later epochs.
# `make methods` trains all, and the full suite tests them.
QUICK = ("pcl",)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in METHODS],
)
def test_thirty_steps(methods, name, tmp_path, monkeypatch):
    compiled = {}

    def compile_once(session):
        """The loop's own step, compiled for the first run and taken again by the others."""
        key = session.recipe.steps
        compiled[key] = compiled.get(key) or original(session)
        return compiled[key]

    # One device, for speed: test_global_batch.py holds eight.
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: device)
    original = loop.compile_step
    monkeypatch.setattr(loop, "compile_step", compile_once)
    config = methods.configuration(name, STEPS)
    config = dataclasses.replace(
        config,
        method=config.method.with_heads(hidden=32, out=16),
        encoder=tiny_config(name).encoder,
    )
    session = training.open_session(config)
    state, found = methods.measure(session, tmp_path / "whole", STEPS)
    assert found["last_loss"] < found["first_loss"]
    assert found["effective_rank"] > 2 and found["total_variance"] > 0.05, found

    run = RunFolder(tmp_path / "stopped")
    run.create(session.config, overwrite=False)
    training.train(session, run, console=QUIET, stop_after=STEPS // 2 + 1)
    again = training.train(session, run, console=QUIET, stop_after=STEPS)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
