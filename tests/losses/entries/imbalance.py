"""Losses for classes of unequal size."""

import numpy as np
from battery import Entry, cosine, unit

from jaxclr import losses


def images(generator, rows, width):
    """Images of four classes, the last of which has no negatives, of which the first has most."""
    targets = np.minimum(generator.geometric(0.4, size=rows) - 1, 3)
    reliable = generator.uniform(size=(rows, 4)) < 0.6
    reliable[np.arange(rows), targets] = False
    reliable[:, 3] = False
    centers = generator.normal(size=(4, width))
    features = centers[targets] + generator.normal(size=(rows, width))
    confidence = generator.uniform(size=rows) < 0.7
    return (
        features,
        centers,
        targets.astype(np.int32),
        reliable,
        confidence,
        np.array([9.0, 4.0, 2.0, 1.0]),
    )


def balanced_contrast(f, centers, targets, reliable, confidence, frequencies, progress=0.25):
    total = 0.0
    for c in range(len(centers)):
        rows, negatives = unit(f)[targets == c], unit(f)[reliable[:, c]]
        if not len(rows) or not len(negatives):
            continue
        cooler = 0.3 * (1 - (1 - progress) ** 2 * 0.5 * np.sqrt(frequencies[c] / frequencies.max()))
        positive = np.exp(cosine(rows, centers[c]) / cooler)
        negative = 64 * np.mean(np.exp(rows @ negatives.T / 0.3))
        total += np.sum(-np.log(positive / (positive + negative)) * confidence[targets == c])
    return total / max(confidence.sum(), 1)


ENTRIES = (
    Entry(
        "balanced_contrast",
        losses.balanced_contrast,
        balanced_contrast,
        {"progress": 0.25, "temperature": 0.3, "adjustment": 0.5, "negative_weight": 64.0},
        make=images,
        spread=(0, None, 0, 0, 0, None),
        stopped=(1, 5),
        positive=("temperature", "negative_weight"),
    ),
)
