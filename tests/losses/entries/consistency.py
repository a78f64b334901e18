"""Losses of softmaxes that are to agree."""

import itertools

import numpy as np
from battery import Entry, Golden, golden_view, softmax, unit, views

from jaxclr import losses

TWO = golden_view(0), golden_view(1)
KEYS = 24


def with_keys(make):
    """What make gives, and keys that are the same on every device."""
    return lambda generator, rows, width: (
        *make(generator, rows, width),
        generator.normal(size=(KEYS, width)),
    )


def chain(generator, rows, width):
    """Queries of three strengths, a key, a queue."""
    *queries, key = views(4)(generator, rows, width)
    return np.stack(queries), key


def symmetric_divergence(a, b):
    """Half the sum of both divergences of the softmaxes of rows, their mean."""
    p, q = softmax(a), softmax(b)
    return np.mean(np.sum(p * np.log(p / q) + q * np.log(q / p), axis=1)) / 2


def co2_in_batch(q, k, temperature):
    a = unit(q) @ unit(k).T / temperature
    return symmetric_divergence(a, a.T)


def co2_of_negatives(q, k, negatives, temperature):
    over = lambda z: unit(z) @ unit(negatives).T / temperature
    return symmetric_divergence(over(q), over(k))


def hiclr(queries, key, queue, temperature):
    def distribution(q):
        of_key = np.sum(unit(q) * unit(key), axis=1, keepdims=True)
        return softmax(np.concatenate([of_key, unit(q) @ unit(queue).T], axis=1) / temperature)

    p = [distribution(q) for q in queries]
    contrast = -np.mean(np.log(p[0][:, 0]))
    pairs = itertools.pairwise(p)
    terms = [-np.mean(np.sum(weak * np.log(strong), axis=1)) for weak, strong in pairs]
    return contrast + np.mean(terms)


def ressl(q, k, queue, temperature, teacher_temperature):
    over = lambda z, temperature: softmax(unit(z) @ unit(queue).T / temperature)
    student, teacher = over(q, temperature), over(k, teacher_temperature)
    return -np.mean(np.sum(teacher * np.log(student), axis=1))


ENTRIES = (
    Entry(
        "co2",
        losses.co2,
        lambda q, k: co2_in_batch(q, k, 0.2),
        {"temperature": 0.2},
        golden=(
            Golden("CO2 symmetric KL t=.05 (mine)", TWO, losses.co2),
            Golden("CO2 lightly (value only)", TWO, losses.co2, differentiated=()),
        ),
    ),
    Entry(
        "co2-negatives",
        losses.co2,
        lambda q, k, negatives: co2_of_negatives(q, k, negatives, 0.2),
        {"temperature": 0.2},
        make=with_keys(views(2)),
        spread=(0, 0, None),
        stopped=(2,),
    ),
    Entry(
        "hierarchical_consistency",
        losses.hierarchical_consistency,
        lambda queries, key, queue: hiclr(queries, key, queue, 0.2),
        {"temperature": 0.2},
        make=with_keys(chain),
        spread=(1, 0, None),
        stopped=(1, 2),
        exempt={"slope": "the teaching distributions are constant"},
    ),
    Entry(
        "ressl",
        losses.ressl,
        lambda q, k, queue: ressl(q, k, queue, 0.3, 0.1),
        {"temperature": 0.3, "teacher_temperature": 0.1},
        make=with_keys(views(2)),
        spread=(0, 0, None),
        stopped=(1, 2),
        positive=("temperature", "teacher_temperature"),
    ),
)
