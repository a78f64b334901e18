"""Losses of embedded sequences."""

import numpy as np
from battery import Entry, Golden, golden_view

from jaxclr import losses


def contrast_regularizer(z1, z2):
    z, count = np.concatenate([z1, z2]), 2 * len(z1)
    a = z @ z.T
    found = []
    for i in range(count):
        partner = (i + len(z1)) % count
        positive, negatives = a[i, partner], np.delete(a[i], [i, partner])
        low, high = min(positive, negatives.max()), max(positive, negatives.max())
        found.append(max(positive - low, 0) + np.mean(np.maximum(high - negatives, 0)))
    return np.mean(found)


ENTRIES = (
    Entry(
        "contrast_regularizer",
        losses.contrast_regularizer,
        contrast_regularizer,
        golden=(Golden("MCLRec contrastive reg (one pair)", (golden_view(0), golden_view(1))),),
        rows=(16, 7, 2),
        exempt={
            "scaling": "embeddings are taken as they are",
            "hyper-parameters": "it has none",
        },
    ),
)
