"""Losses of positives alone."""

import numpy as np
from battery import Entry, Golden, cosine, golden_view, unit, views

from entries.redundancy import with_correlation
from jaxclr import losses

FOUR = tuple(golden_view(v) for v in range(4))


def byol(p1, p2, t1, t2):
    squared = lambda p, t: np.sum((unit(p) - unit(t)) ** 2, axis=1)
    return np.mean(squared(p1, t2) + squared(p2, t1))


def direct_pred(z1, z2, t1, t2, f, eps):
    left, values, right = np.linalg.svd(f)
    predictor = left @ np.diag(np.sqrt(values / values.max())) @ right + eps * np.eye(len(f))
    return byol(z1 @ predictor, z2 @ predictor, t1, t2)


def direct_copy(z1, z2, t1, t2, f, eps):
    return byol(z1 @ f + eps * z1, z2 @ f + eps * z2, t1, t2)


def guided_stop_gradient(p11, p12, p21, p22, z11, z12, z21, z22):
    p1, p2, z1, z2 = (p11, p12), (p21, p22), (z11, z12), (z21, z22)
    total = 0.0
    for i in range(len(p11)):
        distances = {(a, b): np.linalg.norm(z1[a][i] - z2[b][i]) for a in (0, 1) for b in (0, 1)}
        a, b = min(distances, key=distances.get)
        total -= cosine(p1[a][i], z1[1 - a][i]) + cosine(p2[b][i], z2[1 - b][i])
    return total / 2 / len(p11)


def gsg_without_predictor(a1, a2, b1, b2):
    """The first image's crops, and those of the image that is paired with it."""
    pairs = np.asarray([3, 0, 1, 2, 7, 4, 5, 6])
    crops = (a1, a2, b1[pairs], b2[pairs])
    return losses.guided_stop_gradient(*crops, *crops)


ENTRIES = (
    Entry(
        "negative_cosine",
        losses.negative_cosine,
        lambda p, z: -np.mean(cosine(p, z)),
        stopped=(1,),
        exempt={"hyper-parameters": "it has none"},
    ),
    Entry(
        "byol",
        losses.byol,
        byol,
        make=views(4),
        stopped=(2, 3),
        exempt={"hyper-parameters": "it has none"},
        golden=(Golden("BYOL (p1,p2,t1,t2)", FOUR),),
    ),
    *(
        Entry(
            name,
            loss,
            lambda *arrays, oracle=oracle: oracle(*arrays, 0.1),
            {"eps": 0.1},
            make=with_correlation,
            spread=(0, 0, 0, 0, None),
            stopped=(2, 3, 4),
            rows=(16, 7),  # the root of a zero eigenvalue has half of the digits
            positive=(),  # eps may be 0
        )
        for name, loss, oracle in (
            ("direct_pred", losses.direct_pred, direct_pred),
            ("direct_copy", losses.direct_copy, direct_copy),
        )
    ),
    Entry(
        "sim_siam",
        losses.sim_siam,
        lambda p1, p2, z1, z2: -np.mean(cosine(p1, z2) + cosine(p2, z1)) / 2,
        make=views(4),
        stopped=(2, 3),
        exempt={"hyper-parameters": "it has none"},
        golden=(Golden("SimSiam (p1,p2,z1,z2)", FOUR),),
    ),
    Entry(
        "guided_stop_gradient",
        losses.guided_stop_gradient,
        guided_stop_gradient,
        make=views(8),
        stopped=(4, 5, 6, 7),
        exempt={"hyper-parameters": "it has none"},
        golden=(
            Golden("SimSiam-GSG identity pred, r=[3,0,1,2,7,4,5,6]", FOUR, gsg_without_predictor),
        ),
    ),
)
