"""Losses of the spectrum of second moments."""

import numpy as np
from battery import Entry, cosine, stacked, unit, views

from jaxclr import losses


def with_covariance(generator, rows, width):
    q, k, other = views(3)(generator, rows, width)
    return q, k, unit(other).T @ unit(other) / rows


def tico(q, k, before, weight, momentum):
    q = unit(q)
    after = momentum * before + (1 - momentum) * np.mean(q[:, :, None] * q[:, None, :], axis=0)
    return 1 - np.mean(cosine(q, k)) + weight * np.mean(np.einsum("id,de,ie->i", q, after, q))


def wide(generator, rows, width):
    """More dimensions than rows, for few rows."""
    return stacked(2)(generator, rows, 5 * width)


def frossl(views, invariance):
    scaled = views / np.linalg.norm(views, axis=1, keepdims=True)
    total = 0.0
    for view in scaled:
        values = np.linalg.svd(view, compute_uv=False) ** 2
        total += np.log(np.sum((values / values.sum()) ** 2))
        total += invariance * np.sum((view - scaled.mean(axis=0)) ** 2) / len(view)
    return total


ENTRIES = (
    Entry(
        "tico",
        losses.tico,
        lambda q, k, c: tico(q, k, c, 5.0, 0.7),
        {"weight": 5.0, "momentum": 0.7},
        make=with_covariance,
        spread=(0, 0, None),
        stopped=(2,),
    ),
    Entry(
        "mmcr",
        losses.mmcr,
        lambda x: -np.linalg.norm(unit(x).mean(axis=0), "nuc"),
        make=stacked(3),
        spread=(1,),
        exempt={"hyper-parameters": "it has none"},
    ),
    *(
        Entry(
            name,
            losses.frossl,
            lambda x: frossl(x, 1.4),
            {"invariance": 1.4},
            make=make,
            spread=(1,),
            exempt={"scaling": "dimensions are normalized, and not rows"},
        )
        for name, make in (("frossl", stacked(3)), ("frossl-wide", wide))
    ),
)
