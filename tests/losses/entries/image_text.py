"""Losses of two towers."""

import numpy as np
from battery import Entry, cross_entropy, unit

from jaxclr import losses


def clip(z1, z2, temperature):
    a = unit(z1) @ unit(z2).T / temperature
    return (cross_entropy(a) + cross_entropy(a.T)) / 2


def siglip(z1, z2, temperature, bias):
    """The logistic loss of each pair with its label, 1 or -1, summed over columns."""
    a = unit(z1) @ unit(z2).T / temperature + bias
    labels = 2 * np.eye(len(a)) - 1
    return np.mean(np.sum(np.log1p(np.exp(-labels * a)), axis=1))


ENTRIES = (
    Entry("clip", losses.clip, lambda z1, z2: clip(z1, z2, 0.2), {"temperature": 0.2}),
    Entry(
        "siglip",
        losses.siglip,
        lambda z1, z2: siglip(z1, z2, 0.2, -1.5),
        {"temperature": 0.2, "bias": -1.5},
        signed=("bias",),
    ),
)
