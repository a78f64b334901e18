"""Losses of any number of views."""

import itertools

import numpy as np
from battery import Entry, Golden, golden_view, lse, nt_xent, stacked, unit

from jaxclr import losses

FOUR = tuple(golden_view(v) for v in range(4))
TWO = FOUR[:2]


def of_views(loss, temperature=0.5):
    """The loss of views as arguments, as the golden values list them."""
    return lambda *views: loss(views, temperature=temperature)


def logits(views, temperature):
    """[V, b, V, b]."""
    z = unit(views)
    return np.einsum("lid,mjd->limj", z, z) / temperature


def mv_info_nce(views, temperature):
    rows, a = views.shape[1], np.exp(logits(views, temperature))
    total = 0
    for i in range(rows):
        own = a[:, i, :, i]
        own_views = own.sum() - np.trace(own)
        total += np.log(a[:, i].sum() - np.trace(own)) - np.log(own_views)
    return total / rows


def mv_dhel(views, temperature):
    (count, rows), a = views.shape[:2], np.exp(logits(views, temperature))
    total = 0
    for i in range(rows):
        total += sum(np.log(a[v, i, v].sum() - a[v, i, v, i]) for v in range(count))
        total -= np.log(sum(a[v, i, w, i] for v, w in itertools.combinations(range(count), 2)))
    return total / rows


def dhel(z1, z2, temperature):
    def spread(z):
        a = unit(z) @ unit(z).T / temperature
        np.fill_diagonal(a, -np.inf)
        return lse(a)

    return np.mean(spread(z1) + spread(z2) - np.sum(unit(z1) * unit(z2), axis=1) / temperature)


def pairwise(views, temperature):
    return np.mean([nt_xent(x, y, temperature) for x, y in itertools.combinations(views, 2)])


def average(views, temperature):
    z, total = unit(views), 0
    for v in range(len(z)):
        rows = np.concatenate([z[v], np.delete(z, v, axis=0).mean(axis=0)])
        a = rows @ rows.T / temperature
        positive = np.diag(np.roll(a, len(z[v]), axis=1))
        np.fill_diagonal(a, -np.inf)
        total += np.mean(lse(a) - positive)
    return total / len(z)


def poly_view(views, temperature):
    (count, rows), a = views.shape[:2], np.exp(logits(views, temperature))
    terms = []
    for v, w in itertools.permutations(range(count), 2):
        for i in range(rows):
            negatives = a[v, i].sum() - a[v, i, :, i].sum()
            terms.append(-np.log(a[v, i, w, i] / (a[v, i, w, i] + negatives)))
    return np.mean(terms)


def entry(loss, oracle, *golden, **options):
    """Of three views, at the golden values' temperature."""
    return Entry(
        loss.__name__,
        loss,
        lambda views: oracle(views, 0.5),
        {"temperature": 0.5},
        make=stacked(3),
        spread=(1,),
        golden=golden,
        **options,
    )


ENTRIES = (
    entry(
        losses.mv_info_nce,
        mv_info_nce,
        Golden("MV-InfoNCE N=4 tau=.5", FOUR, of_views(losses.mv_info_nce)),
    ),
    entry(
        losses.mv_dhel,
        mv_dhel,
        Golden("MV-DHEL N=4 tau=.5", FOUR, of_views(losses.mv_dhel)),
        Golden("MV-DHEL N=2 tau=.5", TWO, of_views(losses.mv_dhel)),
        rows=(16, 7, 2),
    ),
    entry(
        losses.pairwise_nt_xent,
        pairwise,
        Golden("PWE(NT-Xent) N=4 tau=.5", FOUR, of_views(losses.pairwise_nt_xent)),
    ),
    entry(
        losses.average_nt_xent,
        average,
        Golden("AVG(NT-Xent) N=4 tau=.5", FOUR, of_views(losses.average_nt_xent)),
    ),
    entry(
        losses.poly_view,
        poly_view,
        Golden("PVC geometric N=4 tau=.5", FOUR, of_views(losses.poly_view)),
    ),
    Entry(
        "dhel",
        losses.dhel,
        lambda z1, z2: dhel(z1, z2, 0.3),
        {"temperature": 0.3},
        golden=(Golden("DHEL tau=.3 include_augs", TWO),),
        rows=(16, 7, 2),
    ),
)
