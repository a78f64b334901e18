"""Losses of points."""

import numpy as np
from battery import Entry, unit

from jaxclr import losses


def points(generator, rows, width):
    """Points of a few segments; the first of all stands alone in its own."""
    segments = generator.integers(0, 3, size=rows)
    segments[0] = 9
    foreground = generator.uniform(size=rows) < 0.7
    foreground[0] = True
    features = generator.normal(size=(4, width))[np.minimum(segments, 3)]
    return (
        features + 0.5 * generator.normal(size=(rows, width)),
        segments.astype(np.int32),
        foreground,
    )


def region_contrast(z, segments, foreground, temperature):
    a = unit(z) @ unit(z).T / temperature
    found = []
    for i in np.flatnonzero(foreground):
        mates = [j for j in np.flatnonzero(foreground) if j != i and segments[j] == segments[i]]
        against = [*mates, *np.flatnonzero(~foreground)]
        found.append(np.log(np.sum(np.exp(a[i, against]))) - np.mean(a[i, mates]) if mates else 0.0)
    return np.mean(found)


ENTRIES = (
    Entry(
        "region_contrast",
        losses.region_contrast,
        lambda *arrays: region_contrast(*arrays, 0.3),
        {"temperature": 0.3},
        make=points,
    ),
)
