"""Losses of nearest neighbors."""

import numpy as np
from battery import Entry, cross_entropy, unit, views

from jaxclr import losses


def with_queue(generator, rows, width):
    return *views(2)(generator, rows, width), generator.normal(size=(rows + 8, width))


def nearest(z, queue):
    """The row of the queue at the smallest distance, of unit length."""
    z, queue = unit(z), unit(queue)
    distances = np.linalg.norm(z[:, None] - queue[None], axis=2)
    return queue[distances.argmin(axis=1)]


def nnclr(z, p, queue, temperature):
    return cross_entropy(nearest(z, queue) @ unit(p).T / temperature)


def koleo(z, eps):
    distances = np.linalg.norm(unit(z)[:, None] - unit(z)[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return -np.mean(np.log(np.hypot(distances.min(axis=1), eps)))


ENTRIES = (
    Entry(
        "nnclr",
        losses.nnclr,
        lambda z, p, queue: nnclr(z, p, queue, 0.2),
        {"temperature": 0.2},
        make=with_queue,
        spread=(0, 0, None),
        stopped=(0, 2),
    ),
    Entry(
        "koleo",
        losses.koleo,
        lambda z: koleo(z, 0.2),
        {"eps": 0.2},
        make=views(1),
        rows=(16, 7, 2),
    ),
)
