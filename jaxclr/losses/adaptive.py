"""Contrast by several heads, each with a temperature of its own for every pair."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    batch_size,
    check_floats,
    check_positive,
    contrast,
    positives,
    row_ids,
    row_logsumexp_of,
    row_sum,
    unit_rows,
)

Array = jax.Array
TemperatureFn = Callable[[Array, Array], Array]


def adaptive_multi_head(
    heads1: Array,
    heads2: Array,
    temperature_fn: TemperatureFn,
    *,
    beta: float | Array = 0.1,
    tile: int = 256,
    axis_name: AxisName = None,
) -> Array:
    r"""`nt_xent` of several heads with a temperature for each pair and a penalty on it (AMCL).

    .. math:: \sum_h \frac{1}{2B} \sum_i \Big[ \log \sum_{j \ne i} e^{s_{ij}} - s_{i,p(i)} \Big]
       + \beta \sum_h \operatorname{mean}_{i \ne j} \Big[ \frac D2 \log \tau_{ij}
       + \frac{1}{\tau_{ij}} \Big],
       \qquad s_{ij} = \hat z_i \cdot \hat z_j / \tau_{ij},\; \tau_{ij} = t(\hat z_i, \hat z_j)

    over the 2B rows :math:`Z = [Z_1; Z_2]` of each head. A reconstruction from the paper's idea:
    the official code (LeiWangR/cl) has, in place of the log-sum-exp, the mean of :math:`s_{ij}`
    over the 100 negatives of largest cosine, adds the penalty of positives, and subtracts
    :math:`\log \tau + 1/\tau` of these negatives. Here all pairs count, and
    all penalties are added.

    temperature_fn, t, takes unit features x and y of one head, [..., D] each, whose leading axes
    broadcast, and gives positive temperatures of their broadcast shape [...]. It is called with
    rows [m, 1, D] and columns [1, n, D] of a tile, and with all positives at once, [2b, D] each;
    its intermediate values exist for one tile at a time, also in the backward pass. It serves every
    head, and may close over parameters, which receive gradients. A network on [x; y] is cheapest
    with its first layer in two parts, W x + V y, each computed before they broadcast. The paper's
    ends in 1e-5 + (2 - 1e-5) sigmoid.

    Needs: negatives, heads, a temperature function.
    Cost: HB²(D + its own).
    Global batch: row sums over all columns.

    >>> heads1, heads2 = jax.random.normal(jax.random.key(0), (2, 2, 8, 4))
    >>> temperature = lambda x, y: jnp.exp(-jnp.square(x - y).mean(-1))
    >>> round(float(losses.adaptive_multi_head(heads1, heads2, temperature)), 2)
    7.39

    Args:
      heads1: embeddings of one view by each head, [H, b, D], any float dtype; rows are normalized
        here.
      heads2: those of the other view, [H, b, D].
      temperature_fn: see above.
      beta: weight of the regularizer; zero or more.
      tile: rows and columns of a tile; fewer if temperature_fn needs much memory for a pair.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: heads are not arrays of floats, or beta is not a number.
      ValueError: shapes do not fit, temperature_fn gives another shape than that of its pairs, or
        beta is negative.

    References:
      Wang et al., Adaptive Multi-head Contrastive Learning, 2023 (arXiv:2310.05615).
    """
    heads1, heads2 = check_floats(heads1=(heads1, "H b D"), heads2=(heads2, "H b D"))
    check_positive("beta", beta, zero=True)
    rows, width = heads1.shape[1:]
    ids = row_ids(jnp.concatenate([heads1[0], heads2[0]]), axis_name)
    others = 2 * batch_size(heads1[0], axis_name) - 1
    images = jnp.tile(row_ids(heads1[0], axis_name), 2)
    options: dict[str, Any] = {"axis_name": axis_name, "tile": tile}

    def temperatures(x: Array, y: Array) -> Array:
        found, wanted = temperature_fn(x, y), jnp.broadcast_shapes(x.shape, y.shape)[:-1]
        if found.shape != wanted:
            raise ValueError(
                f"temperature_fn must give a temperature for each pair: "
                f"shape {wanted} for features {x.shape} and {y.shape}, got {found.shape}."
            )
        return found

    def logit(products: Array, x: Array, y: Array) -> Array:
        return products / temperatures(x, y)

    def penalty(_: Array, x: Array, y: Array) -> Array:
        found = temperatures(x, y)
        return width / 2 * jnp.log(found) + 1 / found

    def of_head(z: Array) -> Array:
        sides: dict[str, Any] = {"row_values": (z,), "column_values": (z,), **options}
        partners = jnp.roll(z, rows, axis=0)
        negatives = row_logsumexp_of(logit, z, z, exclude=(images, images), **sides)
        entropy = jnp.mean(contrast(logit(positives(z, partners), z, partners), negatives))
        penalties = row_sum(penalty, z, z, exclude=(ids, ids), **sides)
        return entropy + beta * jnp.mean(penalties) / others

    z = unit_rows(jnp.concatenate([heads1, heads2], axis=1))
    # Not lax.map: the compiler would form the exclusion masks of all tiles before the loop, because
    # they are the same for all heads.
    return functools.reduce(operator.add, map(of_head, z))
