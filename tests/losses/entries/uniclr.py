"""UniCLR's losses."""

import numpy as np
from battery import WIDTH, Entry, cross_entropy, unit

from jaxclr import losses


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
    Entry(
        "sim_trace",
        losses.sim_trace,
        sim_trace,
        exempt={"slope": "mean and covariance are constant"},
        bfloat16_tolerance=0.1,
    ),
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
)
