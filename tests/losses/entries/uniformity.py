"""Alignment and uniformity."""

import itertools

import numpy as np
from battery import Entry, Golden, golden_view, unit, views

from jaxclr import losses

TWO = golden_view(0), golden_view(1)


def align_and_uniform(z1, z2):
    return losses.alignment(z1, z2) + (losses.uniformity(z1) + losses.uniformity(z2)) / 2


def uniformity(z, t):
    pairs = itertools.combinations(unit(z), 2)
    return np.log(np.mean([np.exp(-t * np.sum((x - y) ** 2)) for x, y in pairs]))


ENTRIES = (
    Entry(
        "alignment",
        losses.alignment,
        lambda z1, z2: np.mean(np.linalg.norm(unit(z1) - unit(z2), axis=1)),
        {"alpha": 1.0},
        golden=(Golden("align+uniform (1,1,a=2,t=2)", TWO, align_and_uniform),),
        positive=("alpha",),
    ),
    Entry(
        "uniformity",
        losses.uniformity,
        lambda z: uniformity(z, 3.0),
        {"t": 3.0},
        make=views(1),
        rows=(16, 7, 2),
        positive=("t",),
    ),
)
