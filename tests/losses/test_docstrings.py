"""Public losses have the docstring lines that `jaxclr list losses` shows, and battery entries."""

import inspect
import re

import pytest
from battery import entries

from jaxclr import losses
from jaxclr.cli.definitions import loss_facts, public_losses

# They return arrays, not a loss.
ARRAYS = {
    "dino_center",
    "extrapolate_positives",
    "interpolate_negatives",
    "nearest_neighbors",
    "sinkhorn",
    "tico_covariance",
    "uni_grad_correlation",
}


@pytest.mark.parametrize("name", public_losses())
def test_the_docstring_says_needs_cost_global_batch_and_paper(name):
    found = loss_facts(public_losses()[name])
    assert all(found), found
    assert re.fullmatch(r"\d{4}\.\d{4,5}", found.paper)


def test_public_losses_are_those_that_are_imported():
    functions = {name for name, value in vars(losses).items() if inspect.isfunction(value)}
    assert public_losses().keys() == functions
    for name, docstring in public_losses().items():
        assert docstring == inspect.getdoc(getattr(losses, name))


def test_every_loss_is_in_the_battery():
    held = {entry.name.partition("-")[0] for entry in entries()}
    assert public_losses().keys() - ARRAYS <= held
