"""Losses of positives against the other rows of the batch."""

from battery import Entry, Golden, cross_entropy, golden_view, nt_xent, unit

from jaxclr import losses

X0, X1, X2, X3 = (golden_view(v) for v in range(4))


def nt_xent_at(temperature):
    return lambda z1, z2: losses.nt_xent(z1, z2, temperature=temperature)


def moco_v3(temperature):
    one_way = lambda q, k: 2 * temperature * losses.info_nce(q, k, temperature=temperature)
    return lambda q1, q2, k1, k2: one_way(q1, k2) + one_way(q2, k1)


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
            # k is a momentum embedding there: the norms at k1 and k2 are 0 by the method, not by the loss
            Golden("MoCo-v3 T=1.0 (q1,q2,k1,k2)", (X0, X1, X2, X3), moco_v3(1.0), places=(0, 1)),
            Golden("MoCo-v3 T=0.2 (q1,q2,k1,k2)", (X0, X1, X2, X3), moco_v3(0.2), places=(0, 1)),
        ),
    ),
)
