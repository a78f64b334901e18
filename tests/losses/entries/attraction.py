"""CACR."""

import itertools

import numpy as np
from battery import Entry, Golden, golden_view, lse, softmax, stacked, unit, views

from jaxclr import losses


def squared(x, y):
    return np.sum((x - y) ** 2, axis=-1)


def cacr(views, alpha, beta, t_positive, t_negative, debias):
    z, rows = unit(views), views.shape[1]
    attraction, repulsion = [], []
    for x in range(len(z)):
        d = np.stack([squared(z[x], other) for other in np.delete(z, x, axis=0)], axis=1)
        attraction.append(np.mean(np.sum(alpha * d * softmax(t_positive * d), axis=1)))
    for x, y in itertools.combinations(z, 2):
        d = squared(x[:, None], y[None])
        w = softmax(np.where(np.eye(rows, dtype=bool), -np.inf, -t_negative * d))
        of_rows = np.sum(-beta * d * w, axis=1)
        repulsion.append(np.mean((-debias * np.diag(d) + of_rows) / (1 - debias)))
    return np.mean(attraction) + np.mean(repulsion)


def cacr_rbf(queries, key, temperature):
    q, k = unit(queries), unit(key)
    weights = softmax(squared(q, k[None]).T / temperature).T
    a = np.einsum("vid,jd->vij", q, k) / temperature
    entropies = np.stack([lse(each) - np.diag(each) for each in a])
    return 2 * temperature * np.mean(np.sum(weights * entropies, axis=0))


def queries_and_key(generator, rows, width):
    """Three queries of each key."""
    *queries, key = views(4)(generator, rows, width)
    return np.stack(queries), key


def rbf_of(*arrays):
    """Queries and then their key as arguments, as the golden values list them."""
    *queries, key = arrays
    return losses.cacr_rbf(queries, key, temperature=0.2)


SETTING = {"alpha": 1.5, "beta": 0.7, "t_positive": 0.8, "t_negative": 2.0, "debias": 0.1}
ENTRIES = (
    Entry(
        "cacr",
        losses.cacr,
        lambda views: cacr(views, **SETTING),
        SETTING,
        make=stacked(3),
        spread=(1,),
        rows=(16, 7, 2),
        golden=(
            Golden(
                "CACR full N=5 tp=1 tn=.9",
                tuple(golden_view(v) for v in range(5)),
                lambda *views: losses.cacr(views),
            ),
        ),
        positive=("t_negative",),
    ),
    Entry(
        "cacr_rbf",
        losses.cacr_rbf,
        lambda queries, key: cacr_rbf(queries, key, 0.2),
        {"temperature": 0.2},
        make=queries_and_key,
        spread=(1, 0),
        stopped=(1,),
        exempt={"slope": "the weights of the queries are constant"},
        golden=(
            Golden(
                "CACR MoCo-v3 rbf, 3 queries/1 key T=.2",
                tuple(golden_view(v) for v in range(4)),
                rbf_of,
            ),
            Golden(
                "CACR MoCo-v3 rbf, 1 query/1 key T=.2", (golden_view(0), golden_view(1)), rbf_of
            ),
        ),
    ),
)
