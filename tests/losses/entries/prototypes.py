"""Losses of embeddings against prototypes."""

import jax.numpy as jnp
import numpy as np
from battery import Entry, Golden, golden_view, lse, softmax, stacked, unit, views

from jaxclr import losses
from jaxclr.affinity import unit_rows

K = 5


def sinkhorn(scores, epsilon=0.05, iterations=3):
    """As it is written: scaled exponentials."""
    q = np.exp(scores / epsilon)
    for _ in range(iterations):
        q = q / q.sum(axis=0, keepdims=True) / q.shape[1]
        q = q / q.sum(axis=1, keepdims=True) / q.shape[0]
    return q * q.shape[0]


def swav(scores, assign_crops, temperature, epsilon, earlier=None):
    log_shares = [np.log(softmax(s / temperature)) for s in scores]
    if earlier is None:
        earlier = [scores[c][:0] for c in assign_crops]
    assigned = {
        c: sinkhorn(np.concatenate([scores[c], older]), epsilon)[: len(scores[c])]
        for c, older in zip(assign_crops, earlier, strict=True)
    }
    terms = [
        -np.mean(np.sum(assigned[c] * log_shares[v], axis=1))
        for c in assign_crops
        for v in range(len(scores))
        if v != c
    ]
    return np.mean(terms)


def cosines(generator, rows, width):
    return tuple(unit(scores) for scores in stacked(3)(generator, rows, width))


def cosines_and_earlier(generator, rows, width):
    (scores,), (earlier,) = cosines(generator, rows, width), cosines(generator, rows, width)
    return scores, earlier[:2]


def swav_with_earlier(scores, earlier, **settings):
    return losses.swav(scores, earlier=earlier, **settings)


def golden_swav(*embeddings):
    prototypes = jnp.asarray(unit(golden_view(7)[:5]), embeddings[0].dtype)
    return losses.swav(jnp.stack([unit_rows(x) @ prototypes.T for x in embeddings]))


def assigned(generator, rows, width):
    assignments = generator.integers(K - 1, size=rows).astype(np.int32)
    return generator.normal(size=(K, width)), assignments


def proto_nce_inputs(generator, rows, width):
    (q,) = views(1)(generator, rows, width)
    concentrations = generator.uniform(0.2, 0.6, size=K)
    negatives = np.asarray([K - 1, 0], np.int32)
    return q, *assigned(generator, rows, width), concentrations, negatives


def proto_nce(q, prototypes, assignments, concentrations, negatives):
    logits = unit(q) @ unit(prototypes).T / concentrations
    met = np.union1d(assignments, negatives)
    return np.mean(lse(logits[:, met]) - logits[np.arange(len(q)), assignments])


def pauc_inputs(generator, rows, width):
    return *views(2)(generator, rows, width), *assigned(generator, rows, width)


def pauc(q1, q2, prototypes, assignments, alignment, uniformity, correlation, t, off_diagonal):
    met = np.unique(assignments)
    aligned, spread, standard = [], [], []
    for q in map(unit, (q1, q2)):
        aligned.append(np.mean(np.sum((q - unit(prototypes)[assignments]) ** 2, axis=1)))
        p = unit(np.stack([q[assignments == k].mean(axis=0) for k in met]))
        kernel = np.exp(-t * np.sum((p[:, None] - p[None]) ** 2, axis=2))
        different = ~np.eye(len(p), dtype=bool)
        spread.append(np.log(np.mean(kernel[different])) if len(p) > 1 else 0.0)
        standard.append((p - p.mean(axis=0)) / np.sqrt(p.var(axis=0) + 1e-5))
    c = standard[0].T @ standard[1] / len(met)
    identity = np.eye(len(c))
    apart = np.sum(np.where(identity, 1, off_diagonal) * (c - identity) ** 2)
    return alignment * np.mean(aligned) + uniformity * np.mean(spread) + correlation * apart


PAUC = {"alignment": 0.5, "uniformity": 2.0, "correlation": 0.3, "t": 1.5, "off_diagonal": 0.1}

ENTRIES = (
    Entry(
        "swav",
        losses.swav,
        lambda s: swav(s, (0, 2), 0.2, 0.1),
        {"assign_crops": (0, 2), "temperature": 0.2, "epsilon": 0.1},
        make=cosines,
        spread=(1,),
        exempt={
            "slope": "the assignments are constant",
            "scaling": "scores are cosines",
        },
        positive=("temperature", "epsilon"),
        golden=(
            Golden(
                "SwAV 2 crops K=5 protos=nrm(view7[:5])",
                (golden_view(0), golden_view(1)),
                golden_swav,
            ),
        ),
    ),
    Entry(
        "swav_with_earlier",
        swav_with_earlier,
        lambda s, earlier: swav(s, (2, 0), 0.2, 0.1, earlier),
        {"assign_crops": (2, 0), "temperature": 0.2, "epsilon": 0.1},
        make=cosines_and_earlier,
        spread=(1, None),
        stopped=(1,),
        exempt={
            "slope": "the assignments are constant",
            "scaling": "scores are cosines",
        },
        positive=("temperature", "epsilon"),
    ),
    Entry(
        "proto_nce",
        losses.proto_nce,
        proto_nce,
        make=proto_nce_inputs,
        spread=(0, None, 0, None, None),
        stopped=(1, 3),
        exempt={"hyper-parameters": "it has none"},
    ),
    Entry(
        "pauc",
        losses.pauc,
        lambda *arrays: pauc(*arrays, **PAUC),
        PAUC,
        make=pauc_inputs,
        spread=(0, 0, None, 0),
        stopped=(2,),
        positive=("t",),
    ),
)
