"""Projections of embeddings against a standard normal."""

import numpy as np
from battery import Entry, stacked, unit, views

from jaxclr import losses


def directed(make):
    """Arrays of a batch, and directions."""
    return lambda generator, rows, width: (
        *make(generator, rows, width),
        generator.normal(size=(4, width)),
    )


def sigreg(z, directions, t_max, knots):
    t = np.linspace(-t_max, t_max, 2 * knots - 1)
    normal = np.exp(-(t**2) / 2)
    statistics = []
    for direction in unit(directions):
        found = np.mean(np.exp(1j * np.outer(z @ direction, t)), axis=0)
        statistics.append(len(z) * np.trapezoid(np.abs(found - normal) ** 2 * normal, t))
    return np.mean(statistics)


def lejepa(views, directions, weight, t_max, knots):
    distance = np.mean([np.mean((view - views.mean(axis=0)) ** 2) for view in views])
    spread = np.mean([sigreg(view, directions, t_max, knots) for view in views])
    return (1 - weight) * distance + weight * spread


SETTINGS = {"t_max": 2.5, "knots": 9}

ENTRIES = (
    Entry(
        "sigreg",
        losses.sigreg,
        lambda z, a: sigreg(z, a, **SETTINGS),
        SETTINGS,
        make=directed(views(1)),
        spread=(0, None),
        stopped=(1,),
        exempt={"scaling": "embeddings are taken as they are"},
        positive=("t_max",),
    ),
    Entry(
        "lejepa",
        losses.lejepa,
        lambda x, a: lejepa(x, a, 0.2, **SETTINGS),
        {"weight": 0.2, **SETTINGS},
        make=directed(stacked(3)),
        spread=(1, None),
        stopped=(1,),
        exempt={"scaling": "embeddings are taken as they are"},
        positive=("t_max",),
    ),
)
