"""Losses that make the softmaxes of different queries over the same keys agree."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    attention,
    check_floats,
    check_positive,
    check_views,
    contrast,
    divergence,
    positives,
    row_logsumexp,
    unit_rows,
)

Array = jax.Array


def co2(
    q: Array,
    k: Array,
    negatives: Array | None = None,
    *,
    temperature: float | Array = 0.05,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Symmetric divergence of the softmaxes of query and key over the negatives (CO2's term).

    .. math:: \frac1B \sum_i \left[ \tfrac12 KL(p_i \| q_i) + \tfrac12 KL(q_i \| p_i) \right]

    With negatives, as in the paper, :math:`q_i = \operatorname{softmax}_j \langle \hat q_i, \hat
    n_j \rangle / \tau` and :math:`p_i = \operatorname{softmax}_j \langle \hat k_i, \hat n_j \rangle
    / \tau`, without the positive. Without negatives, the other rows of the batch are the
    negatives: q_i is the softmax of row i and p_i that of column i of the affinity matrix
    :math:`\hat Q \hat K^\top / \tau`, with the positive.

    This is the term alone. The paper adds a multiple of it to a contrastive loss.
    Negatives are constant, like the queue that they come from. Gradients reach both q and k: if k
    comes from a momentum encoder, stop its gradient first.

    Needs: negatives or a queue.
    Cost: B²D, or BKD with a queue.
    Global batch: row sums and means over all columns.

    >>> q, k, queue = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.co2(q, k, queue, temperature=0.2)), 2)
    1.97

    Args:
      q: queries, [b, D], any float dtype; rows are normalized here.
      k: their keys, [b, D].
      negatives: n, [K, D], the same on every device; they receive no gradient. None for the other
        rows of the batch.
      temperature: tau; positive.
      implementation: how softmaxes are formed: "dense", "streamed", "ring" or "auto", all exact;
        see `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: q and k differ in shape or are not matrices, negatives are not as wide,
        temperature is not positive, or implementation is unknown.

    References:
      Wei et al., CO2: Consistent Contrast for Unsupervised Visual Representation Learning, 2020
      (arXiv:2010.02217).
    """
    check_positive("temperature", temperature)
    if negatives is None:
        q, k = map(unit_rows, check_floats(q=(q, "b D"), k=(k, "b D")))
        apart = divergence(q / temperature, k, implementation=implementation, axis_name=axis_name)
        return jnp.mean(apart)
    q, k, negatives = map(
        unit_rows, check_floats(q=(q, "b D"), k=(k, "b D"), negatives=(negatives, "K D"))
    )
    negatives = jax.lax.stop_gradient(negatives)
    rows = jnp.concatenate([q, k]) / temperature
    _, means = attention(rows, negatives, implementation=implementation)
    # KL(p || q) + KL(q || p) is linear in the mean negatives of p and q; the log-sum-exps cancel.
    of_q, of_k = jnp.split(means, 2)
    return jnp.mean(positives((q - k) / temperature, of_q - of_k)) / 2


def ressl(
    q: Array,
    k: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.1,
    teacher_temperature: float | Array = 0.04,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of the relations of query and key to a queue (ReSSL).

    .. math:: -\frac1B \sum_i \sum_{n=1}^{K} p_{in} \log q_{in}, \qquad
       p_i = \operatorname{sg} \operatorname{softmax}_n \langle \hat k_i, \hat n \rangle / \tau',\;
       q_i = \operatorname{softmax}_n \langle \hat q_i, \hat n \rangle / \tau

    The divergence of the paper plus the entropy of p, which is constant: this is what the official
    code computes, before it puts the keys into the queue. The key is not a column of its own
    softmax. The gradient takes no product: that of a log-sum-exp is the mean column of its softmax,
    which comes with it.

    Needs: a queue, targets.
    Cost: BKD.
    Global batch: nothing.

    >>> q, k, queue = jax.random.normal(jax.random.key(0), (3, 8, 4))
    >>> round(float(losses.ressl(q, k, queue)), 2)
    6.12

    Args:
      q: queries, of a strongly augmented view, [b, D], any float dtype; rows are normalized here.
      k: keys, of a weakly augmented view, [b, D]; they receive no gradient.
      queue: n, keys of earlier batches, [K, D], whole on every device; they receive no gradient.
      temperature: tau, of the queries; positive.
      teacher_temperature: tau', of the keys; positive, and smaller to sharpen.
      implementation: as of `co2`.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or a temperature is not a number.
      ValueError: shapes do not fit, a temperature is not positive, or implementation
        is unknown.

    References:
      Zheng et al., ReSSL: Relational Self-Supervised Learning with Weak Augmentation, 2021
      (arXiv:2107.09282), eq. 3-5.
    """
    del axis_name  # the queue is whole, and rows are independent
    q, k, queue = map(unit_rows, check_floats(q=(q, "b D"), k=(k, "b D"), queue=(queue, "K D")))
    check_positive("temperature", temperature)
    check_positive("teacher_temperature", teacher_temperature)
    k, queue = jax.lax.stop_gradient((k, queue))
    rows = q / temperature
    constant = jax.lax.stop_gradient(rows)
    both = jnp.concatenate([constant, k / teacher_temperature])
    sums, means = attention(both, queue, implementation=implementation)
    of_query, of_key = jnp.split(means, 2)
    logsumexp = sums[: len(q)] + positives(rows - constant, of_query)
    return jnp.mean(logsumexp - positives(rows, of_key))


def hierarchical_consistency(
    queries: Array | Sequence[Array],
    key: Array,
    queue: Array,
    *,
    temperature: float | Array = 0.07,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""InfoNCE of the weakest view; each view is the teacher of the next stronger one (HiCLR).

    .. math:: \frac1B \sum_i \Big[ H(e_0, p_{1i})
       + \frac{1}{V - 1} \sum_{v=1}^{V-1} H(\operatorname{sg} p_{vi}, p_{v+1,i}) \Big],
       \qquad p_{vi} = \operatorname{softmax} \left[ \langle \hat q_{vi}, \hat k_i \rangle,\;
       \hat q_{vi} \hat N^\top \right] / \tau

    over the key and the queue N. The first of the two stages of the paper: the second adds nearest
    neighbors to the positives. For three views, as there, the consistency terms have weight one
    half.

    Needs: a queue, views.
    Cost: VBKD.
    Global batch: nothing.

    >>> weak, strong, key, queue = jax.random.normal(jax.random.key(0), (4, 8, 4))
    >>> round(float(losses.hierarchical_consistency((weak, strong), key, queue)), 2)
    20.08

    Args:
      queries: [V, b, D], or a sequence of V >= 2 arrays [b, D], from the weakest augmentation to
        the strongest, any float dtype; rows are normalized here.
      key: [b, D]; it receives no gradient.
      queue: N, earlier keys, [K, D], the same on every device; they receive no gradient.
      temperature: tau; positive.
      implementation: as of `co2`.
      axis_name: mapped axis over which the batch is spread; the share is of this device's rows
        either way.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or temperature is not a number.
      ValueError: shapes are not as above, queries are fewer than two, temperature is not positive,
        or implementation is unknown.

    References:
      Zhang et al., Hierarchical Consistent Contrastive Learning for Skeleton-Based Action
      Recognition with Growing Augmentations, 2022 (arXiv:2211.13466), section 3.
    """
    del axis_name  # the queue is whole, and rows are independent
    named = {
        "queries": (check_views(queries), "V b D"),
        "key": (key, "b D"),
        "queue": (queue, "K D"),
    }
    queries, key, queue = map(unit_rows, check_floats(**named))
    check_positive("temperature", temperature)
    key, queue = jax.lax.stop_gradient((key, queue))
    rows = queries / temperature
    logits = positives(rows, key[None])  # of the key, [V, b]
    flat = rows.reshape(-1, rows.shape[2])
    negatives = row_logsumexp(flat, queue, implementation=implementation).reshape(logits.shape)
    contrasts = contrast(logits, negatives)
    teachers = jax.lax.stop_gradient(rows[:-1]).reshape(-1, rows.shape[2])
    of_queue, means = attention(teachers, queue, implementation=implementation)
    # The key is one more column of the teachers' softmaxes; this is the share of the others.
    share = jax.nn.sigmoid(of_queue.reshape(logits[:-1].shape) - jax.lax.stop_gradient(logits[:-1]))
    excess = logits[1:] - positives(rows[1:], means.reshape(rows[:-1].shape))
    return jnp.mean(contrasts[0]) + jnp.mean(contrasts[1:] + share * excess)
