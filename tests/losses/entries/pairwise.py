"""Losses of each pair of rows."""

import numpy as np
from battery import Entry, Golden, golden_view, unit, views

from jaxclr import losses

TWO = golden_view(0), golden_view(1)
PROJECTION = golden_view(9, rows=6)


def softplus(x):
    return np.log1p(np.exp(x))


def pairs(z1, z2):
    """Positives [2B], and negatives [2B, 2B - 2] of each row."""
    z, rows = unit(np.concatenate([z1, z2])), len(z1)
    a = z @ z.T
    image = np.arange(2 * rows) % rows
    negatives = a[image[:, None] != image[None, :]].reshape(2 * rows, -1)
    return np.diag(np.roll(a, rows, axis=1)), negatives


def mio(z1, z2, temperature_positive, temperature_negative, mse_weight, bound=False):
    positive, negative = pairs(z1, z2)
    attraction, repulsion = -positive / temperature_positive, negative / temperature_negative
    distance = mse_weight * np.mean((unit(z1) - unit(z2)) ** 2)
    if bound:
        return np.mean(attraction) + np.log1p(np.mean(np.exp(repulsion))) + distance
    return np.mean(softplus(attraction)) + np.mean(softplus(repulsion)) + distance


def triplet(z1, z2, projection=None, margin=1.0, weight=8.0, temperature=0.5):
    if projection is not None:
        z1, z2 = z1 @ projection, z2 @ projection
    positive, negative = pairs(z1, z2)
    excess = negative - positive[:, None]
    hinges = np.maximum(margin + excess, 0)
    hinge = hinges.sum() / max(np.sum(hinges > 1e-16), 1)
    return hinge + weight * np.mean(softplus(excess / temperature))


def mio_with(weight):
    return lambda z1, z2: losses.mio(z1, z2, mse_weight=weight)


SETTING = {"temperature_positive": 0.3, "temperature_negative": 0.7, "mse_weight": 2.0}
POSITIVE = ("temperature_positive", "temperature_negative", "pairwise_temperature")
ENTRIES = (
    Entry(
        "mio",
        losses.mio,
        lambda z1, z2: mio(z1, z2, **SETTING),
        SETTING,
        rows=(16, 7, 2),
        positive=POSITIVE,
        golden=(
            Golden("MIO BCE form tp=tn=.5 lam=1", TWO, mio_with(1.0)),
            Golden("MIO (official v1) t=.5 lam=1", TWO, mio_with(1.0)),
            Golden("MIO (official v1) t=.5 lam=0", TWO, losses.mio),
        ),
    ),
    Entry(
        "mio-bound",
        losses.mio,
        lambda z1, z2: mio(z1, z2, **SETTING, bound=True),
        {**SETTING, "bound": True},
        rows=(16, 7, 2),
    ),
    Entry(
        "triplet",
        losses.triplet,
        lambda z1, z2, projection: triplet(z1, z2, projection, 0.4, 2.0, 0.3),
        {"margin": 0.4, "pairwise_weight": 2.0, "pairwise_temperature": 0.3},
        make=lambda generator, rows, width: (
            *views(2)(generator, rows, width),
            generator.normal(size=(width, 8)),
        ),
        spread=(0, 0, None),
        stopped=(2,),
        rows=(16, 7, 2),
        positive=POSITIVE,
        golden=(
            Golden(
                "Trip-ROMA R=view9[:6]", (*TWO, PROJECTION), losses.triplet, differentiated=(0, 1)
            ),
        ),
    ),
)
