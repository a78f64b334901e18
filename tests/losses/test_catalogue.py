"""The table of losses lists all of them, and nothing else."""

import inspect
import re

from battery import entries

from jaxclr import losses
from jaxclr.losses.catalogue import LOSSES, paper

PUBLIC = {name: value for name, value in vars(losses).items() if inspect.isfunction(value)}


def test_every_loss_is_listed_with_its_paper():
    assert LOSSES.keys() == PUBLIC.keys()
    for name, loss in PUBLIC.items():
        assert re.fullmatch(r"\d{4}\.\d{4,5}", paper(loss)), name


def test_every_loss_is_in_the_battery():
    held = {entry.name.partition("-")[0] for entry in entries()}
    others = {"extrapolate_positives", "interpolate_negatives", "sinkhorn", "uni_grad_correlation"}  # they give arrays
    assert PUBLIC.keys() - others <= held
