"""Losses of similarity matrices."""

from battery import Entry, Golden, golden_view, unit

from jaxclr import losses
from jaxclr.affinity import unit_rows

X0, X1, X2, X3 = (golden_view(v) for v in range(4))
ANCHOR = unit(X2) @ unit(X3).T


def similarities(generator, rows, width):
    common = generator.uniform(-1, 1, size=(rows, rows))
    return tuple(common + 0.5 * generator.uniform(-1, 1, size=(rows, rows)) for _ in range(2))


def deep_boosting(s, anchor, margin, mode):
    total = 0.0
    for i in range(len(s)):
        of_row, of_column = [0.0], [0.0]
        for j in range(len(s)):
            if j != i and mode == "absolute":
                of_row.append(margin / 2 + s[i, j] - anchor[i, j])
                of_column.append(margin / 2 + s[j, i] - anchor[j, i])
            elif j != i:
                of_row.append(margin + (anchor[i, i] - anchor[i, j]) - (s[i, i] - s[i, j]))
                of_column.append(margin + (anchor[i, i] - anchor[j, i]) - (s[i, i] - s[j, i]))
        total += max(of_row) + max(of_column)
        if mode == "absolute":
            total += 2 * max(margin / 2 + anchor[i, i] - s[i, i], 0)
    return total


def golden(name, mode):
    def of_embeddings(images, texts):
        similarity = unit_rows(images) @ unit_rows(texts).T
        return losses.deep_boosting(
            similarity, ANCHOR.astype(similarity.dtype), margin=0.2, mode=mode
        )

    return (Golden(name, (X0, X1), of_embeddings),)


def entry(mode, name):
    return Entry(
        f"deep_boosting-{mode}",
        losses.deep_boosting,
        lambda s, anchor: deep_boosting(s, anchor, 0.2, mode),
        {"margin": 0.2, "mode": mode},
        make=similarities,
        stopped=(1,),
        golden=golden(name, mode),
        exempt={
            "scaling": "similarities are taken as they are",
            "permutation": "columns are in the order of the batch",
            "memory": "the caller gives the matrix of similarities",
        },
        positive=("margin",),
    )


ENTRIES = (
    entry("absolute", "DBL abs margin=.2 anchor=S(view2,view3)"),
    entry("relative", "DBL rel margin=.2"),
)
