"""Losses of embeddings against prototypes, assigned by optimal transport or by clustering."""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    check_count,
    check_floats,
    check_ids,
    check_positive,
    check_views,
    contrast,
    gather_rows,
    positives,
    row_logsumexp,
    sum_over,
    unit_rows,
)

Array = jax.Array


def sinkhorn(
    scores: Array,
    *,
    earlier: Array | None = None,
    epsilon: float | Array = 0.05,
    iterations: int = 3,
    axis_name: AxisName = None,
) -> Array:
    r"""Soft assignments that use all prototypes equally, by Sinkhorn iterations (SwAV).

    .. math:: Q = \operatorname{diag}(u)\, e^{S / \epsilon} \operatorname{diag}(v)

    Columns, then rows, are scaled to equal sums over the global batch, `iterations` times. Scales
    are logarithms, so that nothing overflows.

    Needs: scores of prototypes; gives assignments.
    Cost: BK.
    Global batch: sums by prototype.

    >>> scores = jax.random.uniform(jax.random.key(0), (8, 5))
    >>> losses.sinkhorn(scores).shape
    (8, 5)

    Args:
      scores: S [b, K], any float dtype.
      earlier: further rows of S [m, K], of embeddings of earlier batches, whole on every device:
        all rows are assigned jointly, so that the batch alone need not use all prototypes equally.
      epsilon: the smoothing; positive.
      iterations: how many times; at least one.
      axis_name: mapped axis over which the batch is spread; None if scores are all of it.

    Returns:
      Assignments [b, K] of this device's rows, which sum to 1; they carry no gradient.

    Raises:
      TypeError: scores or earlier are not an array of floats, epsilon no number, or iterations no
        integer.
      ValueError: scores or earlier are not a matrix, differ in K, or epsilon or iterations is not
        positive.

    References:
      Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
      2020 (arXiv:2006.09882), section 3.1 and appendix A; Cuturi, Sinkhorn Distances, 2013
      (arXiv:1306.0895).
    """
    named = {"scores": (scores, "b K")} | ({} if earlier is None else {"earlier": (earlier, "m K")})
    every = check_floats(**named)
    check_positive("epsilon", epsilon)
    check_count("iterations", iterations)

    logits = tuple(jax.lax.stop_gradient(rows / epsilon) for rows in every)

    def by_prototype(parts: Sequence[Array]) -> Array:
        total = _batch_logsumexp(parts[0], axis_name)
        for rows in parts[1:]:
            total = jnp.logaddexp(total, jax.nn.logsumexp(rows, axis=0, keepdims=True))
        return total

    def balance(_: int, of_prototypes: Array) -> Array:
        by_sample = lambda rows: jax.nn.logsumexp(rows - of_prototypes, axis=1, keepdims=True)
        return by_prototype([rows - by_sample(rows) for rows in logits])

    of_prototypes = jax.lax.fori_loop(1, iterations, balance, by_prototype(logits))
    return jax.nn.softmax(logits[0] - of_prototypes, axis=1)


def swav(
    scores: Array | Sequence[Array],
    *,
    assign_crops: Sequence[int] = (0, 1),
    earlier: Array | Sequence[Array] | None = None,
    temperature: float | Array = 0.1,
    epsilon: float | Array = 0.05,
    iterations: int = 3,
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each crop's prediction with the assignments of another crop (SwAV).

    .. math:: -\frac{1}{|A|} \sum_{c \in A} \frac{1}{V - 1} \sum_{v \ne c} \frac1B \sum_i \sum_k
       q_{cik} \log \operatorname{softmax}_k(s_{vi} / \tau),
       \qquad q_c = \operatorname{sinkhorn}(S_c)

    Needs: scores of prototypes, views.
    Cost: VBK.
    Global batch: sums by prototype.

    >>> scores = jax.random.uniform(jax.random.key(0), (2, 8, 5))
    >>> round(float(losses.swav(scores)), 2)
    3.19

    Args:
      scores: S of the V crops, [V, b, K] or a sequence of [b, K], any float dtype; at least two.
        Cosines of embeddings and prototypes, whose gradient reaches both by the predictions alone.
      assign_crops: A, the crops whose assignments are predicted from every other.
      earlier: for each of assign_crops the `earlier` of `sinkhorn`, [A, m, K] or a sequence of
        [m, K]; None for none.
      temperature: tau; positive.
      epsilon: of `sinkhorn`; positive.
      iterations: of `sinkhorn`.
      axis_name: mapped axis over which the batch is spread; None if scores are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: scores are not arrays of floats, or a hyper-parameter is not a number.
      ValueError: a shape is wrong, assign_crops are no different crops, or a hyper-parameter is out
        of range.

    References:
      Caron et al., arXiv:2006.09882, eq. 1-2 and section 3.2.
    """
    scores = check_views(scores, name="scores")
    check_positive("temperature", temperature)
    crops = range(scores.shape[0])
    if (
        not assign_crops
        or len(set(assign_crops)) < len(assign_crops)
        or not set(assign_crops) <= set(crops)
    ):
        raise ValueError(
            f"assign_crops must be different crops of 0 to {len(crops) - 1}, at least one, "
            f"got {tuple(assign_crops)}."
        )
    older: Array | Sequence[None] = [None] * len(assign_crops)
    if earlier is not None:
        older = check_views(earlier, least=1, name="earlier")
    if len(older) != len(assign_crops):
        raise ValueError(
            f"earlier must hold scores for each of the {len(assign_crops)} crops to assign, "
            f"got {len(older)}."
        )
    log_shares = jax.nn.log_softmax(scores / temperature, axis=2)

    def predict(crop: int, rows: Array | None) -> Array:
        assignments = sinkhorn(
            scores[crop],
            earlier=rows,
            epsilon=epsilon,
            iterations=iterations,
            axis_name=axis_name,
        )
        others = jnp.asarray([other for other in crops if other != crop])
        return -jnp.mean(jnp.sum(assignments[None] * log_shares[others], axis=2))

    total = functools.reduce(operator.add, map(predict, assign_crops, older))
    return total / len(assign_crops)


def proto_nce(
    q: Array,
    prototypes: Array,
    assignments: Array,
    concentrations: Array,
    negatives: Array,
    *,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Cross-entropy of each query's prototype among those of the batch and sampled ones (PCL).

    .. math:: \frac1B \sum_i \left[ \log \sum_{k \in K} e^{s_{ik}} - s_{i a_i} \right], \qquad
       s_{ik} = \hat q_i^\top \hat c_k / \phi_k,\; K = \{a_1, \dots, a_B\} \cup N

    for one clustering; PCL takes the mean over several, and adds `info_nce` or `queue_info_nce`. K
    is a set: the official code counts a prototype once per image assigned to it, so that copies of
    an image's own are its negatives.

    Needs: prototypes, assignments.
    Cost: B(B + r)D.
    Global batch: which prototypes are present.

    >>> q, prototypes = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> concentrations, negatives = jnp.full(8, 0.2), jnp.array([1, 5])
    >>> round(float(losses.proto_nce(q, prototypes, jnp.arange(8), concentrations, negatives)), 2)
    2.8

    Args:
      q: queries, [b, D], any float dtype; rows are normalized here.
      prototypes: c, centroids of a clustering, [K, D], the same on every device; no gradient.
      assignments: a [b], the prototype of each image.
      concentrations: phi [K], positive: the temperature of each prototype; no gradient.
      negatives: N [r], further prototypes, the same on every device; those present already
        change nothing.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q is all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: an input is not an array of floats, or of integers.
      ValueError: shapes do not fit, an assignment or negative is not a prototype, or implementation
        is unknown.

    References:
      Li et al., Prototypical Contrastive Learning of Unsupervised Representations, 2020
      (arXiv:2005.04966), eq. 11-12.
    """
    floats = {"q": (q, "b D"), "prototypes": (prototypes, "K D")}
    q, prototypes, concentrations = check_floats(**floats, concentrations=(concentrations, "K"))
    count = prototypes.shape[0]
    assignments = check_ids("assignments", assignments, q.shape[0], below=count)
    negatives = check_ids("negatives", negatives, None, below=count)

    q = unit_rows(q)
    prototypes = jax.lax.stop_gradient(unit_rows(prototypes) / concentrations[:, None])
    columns = jnp.concatenate([gather_rows(assignments, axis_name), negatives])
    # Each of n copies of a prototype weighs 1 / n. A row's own prototype is its positive.
    copies = jnp.zeros(count, q.dtype).at[columns].add(1)
    against = row_logsumexp(
        q,
        prototypes[columns],
        exclude=(assignments, columns),
        column_bias=-jnp.log(copies[columns]),
        implementation=implementation,
    )
    return jnp.mean(contrast(positives(q, prototypes[assignments]), against))


def _batch_logsumexp(logits: Array, axis_name: AxisName) -> Array:
    """Log-sum-exp over the rows of all devices, [b, K] to [1, K]; no column may be all -inf."""
    largest = jnp.max(jax.lax.stop_gradient(logits), axis=0, keepdims=True)
    if axis_name is not None:
        largest = jax.lax.pmax(largest, axis_name)
    total = jnp.sum(jnp.exp(logits - largest), axis=0, keepdims=True)
    return largest + jnp.log(sum_over(total, axis_name))
