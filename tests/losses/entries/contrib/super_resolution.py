"""Losses of feature maps."""

import numpy as np
from battery import Entry, cosine

from jaxclr import losses


def maps(generator, rows, width):
    shape = (rows, 1, 2, width)
    anchor = generator.normal(size=shape)
    near = lambda count: anchor + 0.5 * generator.normal(size=(count, *shape))
    return anchor, near(2), near(2)


def feature_map_contrast(anchor, positives, negatives):
    found = []
    for i, image in enumerate(anchor):
        against = sum(np.exp(np.mean(cosine(image, negative[i]))) for negative in negatives)
        for positive in positives:
            score = np.mean(cosine(image, positive[i]))
            found.append(-np.log(np.exp(score) / (np.exp(score) + against)))
    return np.mean(found)


ENTRIES = (
    Entry(
        "feature_map_contrast",
        losses.feature_map_contrast,
        feature_map_contrast,
        make=maps,
        spread=(0, 1, 1),
        exempt={"hyper-parameters": "it has none"},
    ),
)
