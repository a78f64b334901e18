"""Losses between two models of the same signals, such as electroencephalograms."""

import functools
import operator
from typing import Literal

import jax
import jax.numpy as jnp

from jaxclr.affinity import AxisName, Implementation, check_choice, check_floats, check_views
from jaxclr.losses.contrastive import nt_xent

Array = jax.Array


def cross_model(
    features: Array,
    others: Array,
    *,
    temperature: float | Array = 0.2,
    mode: Literal["view", "model"] = "view",
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""NT-Xent across the views of both models, or across the models (MVCNet's CVC and CMC).

    .. math:: \text{view: } \frac{1}{V - 1} \sum_{v=1}^{V-1} \text{nt\_xent}([F_0; G_0], [F_v; G_v])
       \qquad \text{model: } \text{nt\_xent}([F_0; \dots; F_{V-1}], [G_0; \dots; G_{V-1}])

    The view 0 is the signal itself, the others its augmentations. Every row but a row's own
    positive is its negative, also one of the same signal.

    Needs: negatives, views of two models.
    Cost: VB²D (view), V²B²D (model).
    Global batch: row sums over all columns.

    >>> features, others = jax.random.normal(jax.random.key(0), (2, 2, 8, 4))
    >>> round(float(losses.cross_model(features, others)), 2)
    4.91

    Args:
      features: F, of one model, [V, b, D] or a sequence of V arrays [b, D], any float dtype; rows
        are normalized here.
      others: G, of the other model, of the same shape.
      temperature: tau; positive.
      mode: "view" (at least two views) or "model" (at least one).
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: shapes differ, there are too few views, temperature is not positive, or mode or
        implementation is unknown.

    References:
      Wang et al., MVCNet: Multi-View Contrastive Network for Motor Imagery Classification, 2025
      (arXiv:2502.17482).
    """
    check_choice("mode", mode, ("view", "model"))
    least = 2 if mode == "view" else 1
    features, others = check_floats(
        features=(check_views(features, least=least), "V b D"),
        others=(check_views(others, least=least), "V b D"),
    )
    contrast = functools.partial(
        nt_xent, temperature=temperature, implementation=implementation, axis_name=axis_name
    )
    if mode == "model":
        rows = lambda stacked: stacked.reshape(-1, stacked.shape[2])
        return contrast(rows(features), rows(others))
    both = jnp.concatenate([features, others], axis=1)
    terms = [contrast(both[0], view) for view in both[1:]]
    return functools.reduce(operator.add, terms) / len(terms)
