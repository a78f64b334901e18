"""Losses between two models of the same signals."""

import numpy as np
from battery import Entry, nt_xent, stacked

from jaxclr import losses


def two_models(count):
    make = stacked(count)
    return lambda generator, rows, width: (
        *make(generator, rows, width),
        *make(generator, rows, width),
    )


def across_views(f, g):
    both = np.concatenate([f, g], axis=1)
    return np.mean([nt_xent(both[0], both[v], 0.2) for v in range(1, len(f))])


def across_models(f, g):
    return nt_xent(np.concatenate(list(f)), np.concatenate(list(g)), 0.2)


ENTRIES = tuple(
    Entry(
        f"cross_model-{mode}",
        losses.cross_model,
        oracle,
        {"temperature": 0.2, "mode": mode},
        make=two_models(count),
        spread=(1, 1),
    )
    for mode, oracle, count in (("view", across_views, 3), ("model", across_models, 2))
)
