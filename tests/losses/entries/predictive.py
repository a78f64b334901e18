"""Losses of positives alone."""

import numpy as np
from battery import Entry, Golden, cosine, golden_view, unit, views

from jaxclr import losses

FOUR = tuple(golden_view(v) for v in range(4))


def byol(p1, p2, t1, t2):
    squared = lambda p, t: np.sum((unit(p) - unit(t)) ** 2, axis=1)
    return np.mean(squared(p1, t2) + squared(p2, t1))


ENTRIES = (
    Entry(
        "negative_cosine",
        losses.negative_cosine,
        lambda p, z: -np.mean(cosine(p, z)),
        stopped=(1,),
    ),
    Entry(
        "byol",
        losses.byol,
        byol,
        make=views(4),
        stopped=(2, 3),
        golden=(Golden("BYOL (p1,p2,t1,t2)", FOUR),),
    ),
    Entry(
        "sim_siam",
        losses.sim_siam,
        lambda p1, p2, z1, z2: -np.mean(cosine(p1, z2) + cosine(p2, z1)) / 2,
        make=views(4),
        stopped=(2, 3),
        golden=(Golden("SimSiam (p1,p2,z1,z2)", FOUR),),
    ),
)
