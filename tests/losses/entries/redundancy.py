"""Losses of second moments."""

import jax
import numpy as np
from battery import Entry, Golden, cosine, golden_view, stacked, unit, views

from jaxclr import losses

X0, X1, X2, X3 = (golden_view(v) for v in range(4))
NARROW = np.stack([golden_view(v, rows=16, width=4) for v in range(4)])
EVENS_THEN_ODDS = np.r_[0:16:2, 1:16:2]


def vicreg(z1, z2, invariance=25, variance=25, covariance=1):
    total = invariance * np.mean((z1 - z2) ** 2)
    for z in (z1, z2):
        c = np.cov(z.T) if len(z) > 1 else np.zeros((z.shape[1], z.shape[1]))
        total += variance / 2 * np.mean(np.maximum(0, 1 - np.sqrt(np.diag(c) + 1e-4)))
        total += covariance * (np.sum(c**2) - np.sum(np.diag(c) ** 2)) / z.shape[1]
    return total


def vibcreg(z1, z2, invariance, variance, covariance):
    total = invariance * np.mean((z1 - z2) ** 2)
    for z in (z1, z2):
        deviations = z.std(axis=0, ddof=1) if len(z) > 1 else np.zeros(z.shape[1])
        total += variance * np.mean(np.maximum(0, 1 - np.sqrt(deviations**2 + 1e-4)))
        correlations = np.corrcoef(z.T) if len(z) > 1 else np.eye(z.shape[1])
        total += covariance * np.mean((correlations - np.eye(z.shape[1])) ** 2)
    return total


def barlow_twins(z1, z2, off_diagonal=0.0051):
    a, b = ((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) for z in (z1, z2))
    c = a.T @ b / len(z1)
    weights = np.where(np.eye(len(c)), 1, off_diagonal)
    return np.sum(weights * (c - np.eye(len(c))) ** 2)


def w_mse(views, permutations, size, eps):
    total, count = 0.0, 0
    for permutation in permutations:
        white = np.empty_like(views)
        for start in range(0, len(permutation), size):
            rows = permutation[start : start + size]
            for v, view in enumerate(views):
                c = (1 - eps) * np.cov(view[rows].T) + eps * np.eye(view.shape[1])
                centered = view[rows] - view[rows].mean(axis=0)
                white[v, rows] = np.linalg.solve(np.linalg.cholesky(c), centered.T).T
        for v in range(len(views)):
            for u in range(v):
                total += np.mean(2 - 2 * cosine(white[u], white[v]))
                count += 1
    return total / count


def with_permutations(count, iterations):
    """Makes so many views, and so many permutations of their rows."""

    def make(generator, rows, width):
        permutations = [generator.permutation(rows).astype(np.int32) for _ in range(iterations)]
        return (*stacked(count)(generator, rows, width), np.stack(permutations))

    return make


def w_mse_of(permutations, **settings):
    """The loss of views, each an argument."""
    permutations = np.asarray(permutations)
    return lambda *views: losses.w_mse(views, permutations, **settings)


def correlation(m1, m2):
    m = unit(np.concatenate([m1, m2]))
    return m.T @ m / len(m)


def with_correlation(generator, rows, width):
    z1, z2, m1, m2 = views(4)(generator, rows, width)
    return z1, z2, m1, m2, correlation(m1, m2)


def uni_grad(z1, z2, m1, m2, f, weight=100.0):
    z1, z2 = unit(z1), unit(z2)
    energy = lambda z: weight / 2 * np.einsum("id,de,ie->i", z, f, z)
    return np.mean(energy(z1) + energy(z2) - cosine(z1, m2) - cosine(z2, m1)) / 2


def uni_grad_surrogate(*arrays):
    """The surrogate's value, that of the energy at twice the weight; the gradient of the energy."""
    energy = losses.uni_grad(*arrays)
    return energy + jax.lax.stop_gradient(losses.uni_grad(*arrays, weight=200.0) - energy)


ENTRIES = (
    Entry(
        "vicreg",
        losses.vicreg,
        vicreg,
        exempt={"scaling": "embeddings are taken as they are"},
        golden=(Golden("VICReg 25/25/1", (X0, X1)),),
    ),
    Entry(
        "vibcreg",
        losses.vibcreg,
        lambda z1, z2: vibcreg(z1, z2, 3.0, 5.0, 40.0),
        {"invariance": 3.0, "variance": 5.0, "covariance": 40.0},
        exempt={"scaling": "embeddings are taken as they are"},
    ),
    Entry(
        "barlow_twins",
        losses.barlow_twins,
        barlow_twins,
        exempt={"scaling": "embeddings are taken as they are"},
        golden=(Golden("Barlow Twins lam=.0051", (X0, X1)),),
    ),
    Entry(
        "w_mse",
        losses.w_mse,
        lambda x, p: w_mse(x, p, 8, 0.1),
        {"whitening_size": 8, "eps": 0.1},
        make=with_permutations(3, 2),
        spread=(1, None),
        rows=(16, 8),
        exempt={
            "scaling": "embeddings are whitened as they are",
            "permutation": "sub-batches name rows by their index",
        },
        positive=(),  # eps may be 0
        golden=(
            Golden(
                "W-MSE d=2 D=4 B=16 w=8 it=2",
                NARROW[:2],
                w_mse_of([EVENS_THEN_ODDS, np.arange(16)], whitening_size=8),
            ),
            Golden(
                "W-MSE d=4 D=4 B=16 w=16 it=1",
                NARROW,
                w_mse_of([np.arange(16)], whitening_size=16),
            ),
            Golden(
                "W-MSE euclid d=2",
                NARROW[:2],
                w_mse_of([np.arange(16)], whitening_size=16, normalize=False),
            ),
        ),
    ),
    Entry(
        "uni_grad",
        losses.uni_grad,
        uni_grad,
        make=with_correlation,
        spread=(0, 0, 0, 0, None),
        stopped=(2, 3, 4),
        golden=(
            Golden(
                "UniGrad energy form (grad must match)",
                (X0, X1, X2, X3, correlation(X2, X3)),
                differentiated=range(4),
            ),
            Golden(
                "UniGrad lam=100 F=batch F",
                (X0, X1, X2, X3, correlation(X2, X3)),
                uni_grad_surrogate,
                differentiated=range(4),
            ),
        ),
    ),
)
