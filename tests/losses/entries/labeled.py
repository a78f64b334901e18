"""Losses whose positives and negatives are told by labels."""

import numpy as np
from battery import Entry, Golden, golden_view, stacked, unit, views

from jaxclr import losses

X0, X1, X2, X3 = (golden_view(v) for v in range(4))
GATE = 1 / (1 + np.exp(-golden_view(11)))
LABELS = np.array([0, 1, 2, 0, 1, 3, 2, 3], np.int32)
PARTNERS = np.array([1, 1, 3, 2, 0, 3, 0, 2], np.int32)
SUP_CON_LABELS = np.array([0, 1, 0, 2, 1, 1, 2, 3], np.int32)
TARGETS = np.array([0, 1, 0, 1, 1, 0, 1, 1], np.int32)


def labels(generator, rows, classes=4):
    return generator.integers(0, classes, size=rows).astype(np.int32)


def labeled_views(generator, rows, width):
    return *stacked(3)(generator, rows, width), labels(generator, rows)


def sup_con(views, labels, temperature, base_temperature):
    z, labels = unit(views.reshape(-1, views.shape[-1])), np.tile(labels, len(views))
    losses = []
    for a, anchor in enumerate(z):
        others = np.arange(len(z)) != a
        logits = z @ anchor / temperature
        mates = logits[others & (labels == labels[a])]
        log_total = np.log(np.sum(np.exp(logits[others])))
        losses.append(np.mean(log_total - mates) if len(mates) else 0.0)
    return temperature / base_temperature * np.mean(losses)


def sup_con_of_golden(z1, z2):
    return losses.sup_con((z1, z2), SUP_CON_LABELS, temperature=0.1, base_temperature=0.07)


def gated(generator, rows, width):
    (z,) = views(1)(generator, rows, width)
    gate = generator.uniform(0.05, 1.0, size=(rows, width))
    return z, gate, labels(generator, rows), labels(generator, rows)


def gated_contrast(z, gate, labels, partners, temperature):
    total, count = 0.0, 0
    for i, (own, partner) in enumerate(zip(labels, partners, strict=True)):
        gated = unit(z * gate[i])
        exponentials = np.exp(gated @ gated[i] / temperature)
        negatives = np.sum(exponentials[(labels != own) & (labels != partner)])
        found = exponentials[labels == partner]
        total += np.sum(np.log(found + negatives) - np.log(found))
        count += len(found)
    return total / max(count, 1)


def separable(generator, rows, width):
    return *views(4)(generator, rows, width), labels(generator, rows, classes=2)


def sep_clr(c1, c2, s1, s2, labels):
    def squares(x):
        return np.sum((x[:, None] - x[None, :]) ** 2, axis=-1)

    def uniformity(x):
        return np.log(np.mean(np.exp(-squares(x)[np.triu_indices(len(x), 1)])))

    def mean_of(kind, values):
        return np.mean(values[labels == kind]) if np.any(labels == kind) else 0.0

    c1, c2 = unit(c1), unit(c2)
    t1, t2 = (s * labels[:, None] for s in (s1, s2))
    common = np.mean(np.sum((c1 - c2) ** 2, axis=1)) + uniformity(c1) + uniformity(c2)
    salient = mean_of(1, np.sum((s1 - s2) ** 2, axis=1)) + uniformity(t1) + uniformity(t2)
    background = sum(mean_of(0, np.sum(s**2, axis=1)) for s in (s1, s2)) / 2
    joint = [
        np.log(np.mean(np.exp(-squares(c) - squares(t)), axis=1)) for c, t in ((c1, t1), (c2, t2))
    ]
    return common + 1000 * salient + 1000 * background + 10 * np.mean(joint)


def sep_clr_of_golden(c1, c2, s1, s2):
    return losses.sep_clr(c1, c2, s1, s2, TARGETS)


ENTRIES = (
    Entry(
        "sup_con",
        losses.sup_con,
        lambda views, labels: sup_con(views, labels, 0.2, 0.07),
        {"temperature": 0.2, "base_temperature": 0.07},
        make=labeled_views,
        spread=(1, 0),
        golden=(Golden("SupCon tau=.1 base=.07 y=[0,1,0,2,1,1,2,3]", (X0, X1), sup_con_of_golden),),
        positive=("temperature", "base_temperature"),
    ),
    Entry(
        "gated_contrast",
        losses.gated_contrast,
        lambda *arrays: gated_contrast(*arrays, 0.1),
        {"temperature": 0.1},
        make=gated,
        golden=(
            Golden("Hydra/SimLAP gate=sigmoid(view11) T=.1", (X0, GATE, LABELS, PARTNERS)),
            Golden("Hydra/SimLAP official fns", (X0, GATE, LABELS, PARTNERS)),
        ),
    ),
    Entry(
        "sep_clr",
        losses.sep_clr,
        sep_clr,
        make=separable,
        rows=(16, 7, 2),
        exempt={"scaling": "salient embeddings are taken as they are"},
        golden=(Golden("SepCLR k-JEM y=[0,1,0,1,1,0,1,1]", (X0, X1, X2, X3), sep_clr_of_golden),),
    ),
)
