"""The composed loss: its parts that no other function covers."""

import numpy as np
from battery import Entry, lse, unit

from jaxclr.losses import compose


def decoupled_of_both_views(q, k, temperature):
    rows = np.concatenate([unit(q), unit(k)])
    a = rows @ rows.T / temperature
    image = np.tile(np.arange(len(q)), 2)
    negatives = np.where(image[:, None] != image[None, :], a, -np.inf)
    return np.mean(
        lse(negatives) - np.sum(rows * np.roll(rows, len(q), axis=0), axis=1) / temperature
    )


def binary(q, k, temperature):
    a = unit(q) @ unit(k).T / temperature
    softplus = np.log1p(np.exp(a))
    off = ~np.eye(len(q), dtype=bool)
    return np.mean(np.log1p(np.exp(-np.diag(a)))) + (softplus[off].mean() if off.any() else 0.0)


ENTRIES = (
    Entry(
        "affinity_loss-decoupled",
        compose.affinity_loss,
        lambda q, k: decoupled_of_both_views(q, k, 0.2),
        {
            "temperature": 0.2,
            "transform": compose.both_views(compose.unit),
            "readout": compose.decoupled,
        },
        rows=(16, 7),
    ),
    Entry(
        "affinity_loss-binary",
        compose.affinity_loss,
        lambda q, k: binary(q, k, 0.5),
        {"temperature": 0.5, "readout": compose.binary},
    ),
)
