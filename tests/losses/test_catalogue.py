"""Every public loss has the docstring lines that the catalogue reads, and a battery entry."""

import re

import pytest
from battery import entries

from jaxclr.losses.catalogue import facts, public_losses

# They return arrays, not a loss.
ARRAYS = {"extrapolate_positives", "interpolate_negatives", "sinkhorn", "uni_grad_correlation"}


@pytest.mark.parametrize("name", public_losses())
def test_the_docstring_says_needs_cost_global_batch_and_paper(name):
    found = facts(public_losses()[name])
    assert all(found), found
    assert re.fullmatch(r"\d{4}\.\d{4,5}", found.paper)


def test_every_loss_is_in_the_battery():
    held = {entry.name.partition("-")[0] for entry in entries()}
    assert public_losses().keys() - ARRAYS <= held
