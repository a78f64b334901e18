"""Losses that weigh positives by how far they are, and negatives by how close (CACR)."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_batch,
    check_floats,
    check_positive,
    check_views,
    contrast,
    expected_logit,
    positives,
    row_ids,
    row_logsumexp,
    unit_rows,
)

Array = jax.Array


def cacr(
    views: Array | Sequence[Array],
    *,
    alpha: float | Array = 1.0,
    beta: float | Array = 1.0,
    t_positive: float | Array = 1.0,
    t_negative: float | Array = 0.9,
    debias: float | Array = 0.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Far positives are attracted and close negatives repelled the most (CACR).

    .. math:: \frac{\alpha}{VB} \sum_{l,i} \sum_{m \ne l} a_{il,m} \| \hat z_{il} - \hat z_{im} \|^2
       - \frac{2 \beta}{V(V-1)B} \sum_{l<m} \sum_i \sum_{j \ne i} w_{il,jm}
       \| \hat z_{il} - \hat z_{jm} \|^2

    where a is the softmax over m of :math:`t^+` times the squared distances, and w that over j of
    :math:`-t^-` times them. Gradients flow through the weights. Negatives of a view are those of
    later views, as in the official code.

    With debias :math:`\rho` a row's repulsion R becomes
    :math:`(R - \rho \| \hat z_{il} - \hat z_{im} \|^2) / (1 - \rho)`: as in the official code, the
    positive's distance enters with the sign of a repulsion and without beta.

    Needs: negatives, views.
    Cost: V²B²D.
    Global batch: row means over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.cacr(views)), 2)
    1.28

    Args:
      views: [V, b, D], or a sequence of V >= 2 arrays [b, D], any float dtype; rows are normalized
        here.
      alpha: weight of the attraction; zero or more.
      beta: weight of the repulsion; zero or more.
      t_positive: how much far positives count; zero or more.
      t_negative: how much close negatives count; positive.
      debias: share of positives among the negatives, from 0 to below 1; the official code's is 0.1
        where it is used.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if views are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: views are not arrays of floats, or a weight is not a number.
      ValueError: views are not matrices, differ in shape or are fewer than two, the global batch is
        a single image, a weight or debias is out of range, or implementation is unknown.

    References:
      Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation Learning,
      2021 (arXiv:2105.03746).
    """
    views = check_views(views)
    for name, weight in {"alpha": alpha, "beta": beta, "t_positive": t_positive}.items():
        check_positive(name, weight, zero=True)
    check_positive("t_negative", t_negative)
    check_positive("debias", debias, zero=True)
    if not isinstance(debias, Array) and debias >= 1:
        raise ValueError(f"debias must be below 1, got {debias}.")
    check_batch(batch_size(views[0], axis_name))
    rows = unit_rows(views)
    distances = 2 - 2 * positives(rows[:, None], rows[None])  # of an image's own views, [V, V, b]
    others = ~jnp.eye(len(rows), dtype=bool)[:, :, None]
    weights = jax.nn.softmax(jnp.where(others, t_positive * distances, -jnp.inf), axis=1)
    attraction = alpha * jnp.mean(jnp.sum(weights * distances, axis=1))

    expected = functools.partial(expected_logit, implementation=implementation, axis_name=axis_name)
    images = row_ids(rows[0], axis_name)
    repulsions = []
    for later in range(1, len(rows)):
        before = rows[:later].reshape(-1, rows.shape[2])
        exclude = jnp.tile(images, later), images
        # -t d is 2t <x, y> - 2t between unit rows.
        _, logit = expected(2 * t_negative * before, rows[later], exclude=exclude)
        repulsion = -beta * (2 - logit / t_negative)
        repulsions.append(repulsion - debias * distances[:later, later].reshape(-1))
    return attraction + jnp.mean(jnp.concatenate(repulsions)) / (1 - debias)


def cacr_rbf(
    queries: Array | Sequence[Array],
    key: Array,
    *,
    temperature: float | Array = 1.0,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""InfoNCE of several queries of each key, the far ones counting most (CACR on MoCo v3).

    .. math:: \frac{2\tau}{B} \sum_i \sum_v p_{vi} \Big[ \log \sum_j e^{A^v_{ij}}
       - A^v_{ii} \Big], \qquad
       A^v = \hat Q_v \hat K^\top / \tau,\; p_{vi} = \operatorname{sg} \operatorname{softmax}_v
       \| \hat q_{vi} - \hat k_i \|^2 / \tau

    For one query of each key it is one direction of MoCo v3's loss.

    Needs: negatives, views.
    Cost: VB²D.
    Global batch: row sums over all columns.

    >>> views = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.cacr_rbf(views[:2], views[2])), 2)
    5.03

    Args:
      queries: [V, b, D], or a sequence of V >= 1 arrays [b, D], any float dtype; rows are
        normalized here.
      key: [b, D]; it receives no gradient.
      temperature: tau; positive.
      implementation: as of `cacr`.
      axis_name: mapped axis over which the batch is spread; None if queries and key are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: queries and key are not matrices or differ in shape, temperature is not positive,
        or implementation is unknown.

    References:
      Zheng et al., Contrastive Attraction and Contrastive Repulsion for Representation Learning,
      2021 (arXiv:2105.03746).
    """
    named = {"queries": (check_views(queries, least=1), "V b D"), "key": (key, "b D")}
    queries, key = map(unit_rows, check_floats(**named))
    check_positive("temperature", temperature)
    key = jax.lax.stop_gradient(key)
    rows = queries / temperature
    logits = positives(rows, key[None])
    ids = row_ids(key, axis_name)
    over_keys = functools.partial(
        row_logsumexp, exclude=(ids, ids), implementation=implementation, axis_name=axis_name
    )
    negatives = jax.vmap(over_keys, (0, None))(rows, key)
    # A squared distance over tau is 2 / tau - 2 <q, k> / tau.
    weights = jax.lax.stop_gradient(jax.nn.softmax(-2 * logits, axis=0))
    return 2 * temperature * jnp.mean(jnp.sum(weights * contrast(logits, negatives), axis=0))
