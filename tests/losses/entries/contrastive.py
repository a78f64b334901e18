"""Losses of positives against the other rows of the batch, or against a queue."""

import numpy as np
from battery import Entry, Golden, cross_entropy, golden_view, lse, nt_xent, softmax, unit, views

from jaxclr import losses

X0, X1, X2, X3 = (golden_view(v) for v in range(4))
QUEUE = unit(golden_view(2, rows=16))


def nt_xent_at(temperature):
    return lambda z1, z2: losses.nt_xent(z1, z2, temperature=temperature)


def moco_v3(temperature):
    one_way = lambda q, k: 2 * temperature * losses.info_nce(q, k, temperature=temperature)
    return lambda q1, q2, k1, k2: one_way(q1, k2) + one_way(q2, k1)


def with_queue(generator, rows, width):
    return *views(2)(generator, rows, width), generator.normal(size=(rows + 8, width))


def queue_cross_entropy(q, k, queue, temperature):
    logits = (
        np.concatenate([np.sum(q * k, axis=1, keepdims=True), q @ queue.T], axis=1) / temperature
    )
    return np.mean(lse(logits) - logits[:, 0])


def feature_transform(q, k):
    q, k = losses.extrapolate_positives(q, k, 1.4)
    negatives = losses.interpolate_negatives(QUEUE, 0.7, np.arange(16)[::-1])
    return losses.queue_cross_entropy(q, k, negatives, temperature=0.2)


def dcl(z1, z2, temperature, sigma=None):
    z1, z2 = unit(z1), unit(z2)
    logits = np.concatenate([z1 @ z1.T, z1 @ z2.T], axis=1) / temperature
    logits[np.tile(np.eye(len(z1), dtype=bool), 2)] = -np.inf
    cosines = np.sum(z1 * z2, axis=1)
    weights = 1 if sigma is None else 2 - len(z1) * softmax(cosines[None, :] / sigma)[0]
    return np.mean(lse(logits) - weights * cosines / temperature)


def local_contrast(a1, a2, b1, b2, **settings):
    return losses.local_contrast([(a1, a2), (b1, b2)], **settings)


ENTRIES = (
    Entry(
        "nt_xent",
        losses.nt_xent,
        lambda q, k: nt_xent(q, k, 0.5),
        {"temperature": 0.5},
        golden=(
            Golden("NT-Xent tau=.5 (MV repo)", (X0, X1)),
            Golden("NT-Xent tau=.5 (htdt)", (X0, X1)),
            Golden("NT-Xent tau=.1 (MV repo)", (X0, X1), nt_xent_at(0.1)),
        ),
    ),
    Entry(
        "info_nce",
        losses.info_nce,
        lambda q, k: cross_entropy(unit(q) @ unit(k).T / 0.2),
        {"temperature": 0.2},
        golden=(
            # k is a momentum embedding there: the norms at k1 and k2 are 0 by the method, not by
            # the loss
            Golden(
                "MoCo-v3 T=1.0 (q1,q2,k1,k2)", (X0, X1, X2, X3), moco_v3(1.0), differentiated=(0, 1)
            ),
            Golden(
                "MoCo-v3 T=0.2 (q1,q2,k1,k2)", (X0, X1, X2, X3), moco_v3(0.2), differentiated=(0, 1)
            ),
        ),
    ),
    Entry(
        "queue_info_nce",
        losses.queue_info_nce,
        lambda q, k, queue: queue_cross_entropy(unit(q), unit(k), unit(queue), 0.2),
        {"temperature": 0.2},
        make=with_queue,
        spread=(0, 0, None),
        stopped=(1, 2),
        golden=(Golden("MoCo-v2 T=.2 queue=nrm(view2)", (X0, X1, QUEUE), differentiated=(0, 1)),),
    ),
    Entry(
        "queue_cross_entropy",
        losses.queue_cross_entropy,
        lambda q, k, queue: queue_cross_entropy(q, k, queue, 2.0),
        {"temperature": 2.0},
        make=with_queue,
        spread=(0, 0, None),
        exempt={"scaling": "embeddings are taken as they are"},
        golden=(Golden("FT posneg lam+=1.4 lam-=.7 T=.2", (X0, X1), feature_transform),),
    ),
    Entry(
        "dcl",
        losses.dcl,
        lambda z1, z2: dcl(z1, z2, 0.1),
        {"temperature": 0.1},
        rows=(16, 7, 2),
        golden=(Golden("DCL one-way tau=.1 (pre-normed)", (X0, X1)),),
    ),
    Entry(
        "dcl-weighted",
        losses.dcl,
        lambda z1, z2: dcl(z1, z2, 0.1, 0.5),
        {"temperature": 0.1, "weighting": "von_mises_fisher", "sigma": 0.5},
        rows=(16, 7, 2),
        golden=(Golden("DCLW one-way tau=.1 sigma=.5", (X0, X1)),),
        positive=("temperature", "sigma"),
    ),
    Entry(
        "local_contrast",
        local_contrast,
        lambda a1, a2, b1, b2: nt_xent(a1, a2, 0.2) + nt_xent(b1, b2, 0.2),
        {"temperature": 0.2},
        make=views(4),
    ),
)
