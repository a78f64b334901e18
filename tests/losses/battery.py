"""One entry per loss: its inputs, its definition in NumPy, and what holds for it. The tests beside this file do the rest."""

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxclr import losses

ROWS, WIDTH = 16, 6


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def lse(a):
    top = a.max(axis=1, keepdims=True)
    return (top + np.log(np.exp(a - top).sum(axis=1, keepdims=True)))[:, 0]


def cross_entropy(a):
    return np.mean(lse(a) - np.diag(a))


def whitened_affinity(q, k, eps):
    q, k = unit(q), unit(k)
    rows = np.concatenate([q, k])
    mean = rows.mean(axis=0, keepdims=True)
    covariance = np.cov(rows.T) + eps * np.eye(rows.shape[1])
    return (q - mean) @ np.linalg.inv(covariance) @ (k - mean).T


def sim_affinity(q, k, temperature=1.0, symmetry_weight=0.01, divisor=1.0):
    a = unit(q) @ unit(k).T / temperature
    return cross_entropy(a) + symmetry_weight * np.linalg.norm(a - a.T) / divisor


def sim_whitening(q, k, temperature=1.0, symmetry_weight=0.01, divisor=None):
    a = whitened_affinity(q, k, 0.01) / temperature / (divisor or len(q))
    return cross_entropy(a) + symmetry_weight * np.linalg.norm(a - a.T)


def sim_trace(q, k, eps=0.01):
    return -np.trace(whitened_affinity(q, k, eps)) / len(q)


def symmetric_loss(q, k, temperature=1.0):
    a = unit(q) @ unit(k).T / temperature
    return np.linalg.norm(a - a.T)


def nt_xent(z1, z2, temperature):
    z = unit(np.concatenate([z1, z2]))
    a = z @ z.T / temperature
    positive = np.diag(np.roll(a, len(z1), axis=1))
    np.fill_diagonal(a, -np.inf)
    return np.mean(lse(a) - positive)


def info_nce(q, k, temperature):
    return cross_entropy(unit(q) @ unit(k).T / temperature)


def cosine(p, z):
    return np.sum(unit(p) * unit(z), axis=1)


def byol(p1, p2, t1, t2):
    squared = lambda p, t: np.sum((unit(p) - unit(t)) ** 2, axis=1)
    return np.mean(squared(p1, t2) + squared(p2, t1))


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A loss under given hyper-parameters."""

    name: str
    loss: Callable
    oracle: Callable
    settings: dict = dataclasses.field(default_factory=dict)
    inputs: int = 2
    stopped: tuple[int, ...] = ()
    stops_statistics: bool = False  # then finite differences see what the gradient does not
    bfloat16_tolerance: float = 0.03

    def __call__(self, *arrays, axis_name=None):
        return self.loss(*arrays, **self.settings, axis_name=axis_name)

    def arrays(self, seed=0, rows=ROWS, width=WIDTH):
        """Views of the same images: float64 [rows, width], neither equal nor unrelated."""
        generator = np.random.default_rng(seed)
        common = generator.normal(size=(rows, width))
        return tuple(common + 0.5 * generator.normal(size=(rows, width)) for _ in range(self.inputs))


ENTRIES = (
    Entry(
        "sim_affinity",
        losses.sim_affinity,
        lambda q, k: sim_affinity(q, k, 0.2, 0.01),
        {"temperature": 0.2},
    ),
    Entry(
        "sim_affinity-per_sample",
        losses.sim_affinity,
        lambda q, k: sim_affinity(q, k, 0.5, 1.0, divisor=len(q)),
        {"temperature": 0.5, "symmetry_weight": 1.0, "symmetry_scale": "per_sample"},
    ),
    Entry("sim_whitening", losses.sim_whitening, sim_whitening),
    Entry(
        "sim_whitening-divisor",
        losses.sim_whitening,
        lambda q, k: sim_whitening(q, k, 0.2, 0.0, divisor=WIDTH),
        {"temperature": 0.2, "symmetry_weight": 0.0, "logit_divisor": float(WIDTH)},
    ),
    Entry("sim_trace", losses.sim_trace, sim_trace, stops_statistics=True, bfloat16_tolerance=0.1),
    Entry(
        "sim_trace-differentiated",
        losses.sim_trace,
        lambda q, k: sim_trace(q, k, 0.05),
        {"stop_statistics": False, "eps": 0.05},
        bfloat16_tolerance=0.1,
    ),
    Entry(
        "symmetric_loss",
        losses.symmetric_loss,
        lambda q, k: symmetric_loss(q, k, 0.5),
        {"temperature": 0.5},
    ),
    Entry("nt_xent", losses.nt_xent, lambda q, k: nt_xent(q, k, 0.5), {"temperature": 0.5}),
    Entry("info_nce", losses.info_nce, lambda q, k: info_nce(q, k, 0.2), {"temperature": 0.2}),
    Entry(
        "negative_cosine",
        losses.negative_cosine,
        lambda p, z: -np.mean(cosine(p, z)),
        stopped=(1,),
    ),
    Entry("byol", losses.byol, byol, inputs=4, stopped=(2, 3)),
    Entry(
        "sim_siam",
        losses.sim_siam,
        lambda p1, p2, z1, z2: -np.mean(cosine(p1, z2) + cosine(p2, z1)) / 2,
        inputs=4,
        stopped=(2, 3),
    ),
)
