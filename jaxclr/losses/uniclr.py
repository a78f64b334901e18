"""UniCLR: row cross-entropy, whitening, trace and symmetry of the affinity matrix.

All follow Li et al., A Unified Framework for Contrastive Learning from a Perspective of Affinity Matrix, 2022
(arXiv:2211.14516) as its official code defines them for one device, and take the batch of all devices where that code
takes each device's own. The code adds loss(q1, k2) + loss(q2, k1), with k constant: that is the method's choice.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    Implementation,
    asymmetry,
    batch_size,
    check_choice,
    check_embeddings,
    check_positive,
    moments,
    positives,
    row_logsumexp,
    unit_rows,
    whiten,
)

Array = jax.Array
SymmetryScale = Literal["frobenius", "per_sample"]


def sim_affinity(
    q: Array,
    k: Array,
    *,
    temperature: float | Array = 1.0,
    symmetry_weight: float | Array = 0.01,
    symmetry_scale: SymmetryScale = "frobenius",
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Row cross-entropy of the affinity matrix plus its asymmetry (UniCLR's SimAffinity).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right] + \gamma \|A - A^\top\|_F,
       \qquad A = \hat Q \hat K^\top / \tau

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalised here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      symmetry_weight: gamma; zero or more.
      symmetry_scale: "frobenius" as written, which grows with the batch, or "per_sample", divided by B, which does not.
      implementation: how row sums are formed: "dense", "streamed", "ring" or "auto", all exact; see
        `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the global batch.

    Raises:
      TypeError: q or k is no array of floats, or a hyper-parameter no number.
      ValueError: q and k differ in shape or are no matrices, or a hyper-parameter is out of range.

    References:
      Li et al., arXiv:2211.14516, SimAffinity.
    """
    q, k = check_embeddings(q=q, k=k)
    _check(temperature, symmetry_weight, symmetry_scale)
    q, k = unit_rows(q), unit_rows(k)
    return _cross_entropy_and_asymmetry(
        q, k, temperature, symmetry_weight, symmetry_scale, implementation, axis_name
    )


def sim_whitening(
    q: Array,
    k: Array,
    *,
    temperature: float | Array = 1.0,
    symmetry_weight: float | Array = 0.01,
    symmetry_scale: SymmetryScale = "frobenius",
    eps: float | Array = 0.01,
    logit_divisor: float | Array | None = None,
    stop_statistics: bool = False,
    implementation: Implementation = "auto",
    axis_name: AxisName = None,
) -> Array:
    r"""Row cross-entropy of the whitened affinity matrix plus its asymmetry (UniCLR's SimWhitening).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right] + \gamma \|A - A^\top\|_F,
       \qquad A = \frac{1}{c \tau} (\hat Q - \mu)(\Sigma + \epsilon I)^{-1}(\hat K - \mu)^\top

    with one mean and covariance over the rows of both views of the global batch.

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalised here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      symmetry_weight: gamma; zero or more.
      symmetry_scale: "frobenius" as written, which grows with the batch, or "per_sample", divided by B, which does not.
      eps: ridge added to the covariance, whose trace is at most 1; positive.
      logit_divisor: c; None divides by the B rows of the global batch, as the official code does on one device, so that
        logits flatten as the batch grows; a number, for instance D, does not depend on it.
      stop_statistics: hold mean and covariance constant in the gradient; the official code does not.
      implementation: how row sums are formed: "dense", "streamed", "ring" or "auto", all exact; see
        `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the global batch.

    Raises:
      TypeError: q or k is no array of floats, or a hyper-parameter no number.
      ValueError: q and k differ in shape or are no matrices, or a hyper-parameter is out of range.

    References:
      Li et al., arXiv:2211.14516, SimWhitening.
    """
    q, k = check_embeddings(q=q, k=k)
    _check(temperature, symmetry_weight, symmetry_scale)
    check_positive("eps", eps)
    if logit_divisor is None:
        logit_divisor = batch_size(q, axis_name)
    check_positive("logit_divisor", logit_divisor)
    q, k = _whitened(q, k, eps, stop_statistics, axis_name)
    temperature = temperature * logit_divisor
    return _cross_entropy_and_asymmetry(
        q, k, temperature, symmetry_weight, symmetry_scale, implementation, axis_name
    )


def sim_trace(
    q: Array,
    k: Array,
    *,
    eps: float | Array = 0.01,
    stop_statistics: bool = True,
    axis_name: AxisName = None,
) -> Array:
    r"""Negative mean trace of the whitened affinity matrix (UniCLR's SimTrace).

    .. math:: -\frac{1}{B} \operatorname{tr}\left[(\hat Q - \mu)\,(\Sigma + \epsilon I)^{-1} (\hat K - \mu)^\top\right]

    with unit rows, and one mean and covariance over the rows of both views of the global batch.
    Only D x D matrices are formed: O(BD^2 + D^3) time, O(BD + D^2) memory. Full collapse gives 0, the worst value.

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalised here.
      k: embeddings of the other view, [b, D].
      eps: ridge added to the covariance, whose trace is at most 1; positive.
      stop_statistics: hold mean and covariance constant in the gradient, as the official code does.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss; its mean over devices is the loss of the global batch.

    Raises:
      TypeError: q or k is no array of floats, or eps no number.
      ValueError: q and k differ in shape or are no matrices, or eps is not positive.

    References:
      Li et al., arXiv:2211.14516, SimTrace.
    """
    q, k = check_embeddings(q=q, k=k)
    check_positive("eps", eps)
    q, k = _whitened(q, k, eps, stop_statistics, axis_name)
    return -jnp.mean(positives(q, k))


def symmetric_loss(
    q: Array,
    k: Array,
    *,
    temperature: float | Array = 1.0,
    scale: SymmetryScale = "frobenius",
    axis_name: AxisName = None,
) -> Array:
    r"""Asymmetry of the affinity matrix (UniCLR's symmetric loss), from D x D Grams alone.

    .. math:: \|A - A^\top\|_F, \qquad A = \hat Q \hat K^\top / \tau

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalised here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      scale: "frobenius" as written, which grows with the batch, or "per_sample", divided by B, which does not.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss: the norm for the global batch, the same on every device.

    Raises:
      TypeError: q or k is no array of floats, or temperature no number.
      ValueError: q and k differ in shape or are no matrices, or a hyper-parameter is out of range.

    References:
      Li et al., arXiv:2211.14516, the symmetric loss.
    """
    q, k = check_embeddings(q=q, k=k)
    _check(temperature, 1.0, scale)
    return _asymmetry(unit_rows(q), unit_rows(k), scale, axis_name) / temperature


def _check(temperature: float | Array, symmetry_weight: float | Array, scale: str) -> None:
    check_positive("temperature", temperature)
    check_positive("symmetry_weight", symmetry_weight, zero=True)
    check_choice("the scale of the symmetric term", scale, ("frobenius", "per_sample"))


def _whitened(
    q: Array, k: Array, eps: float | Array, stop_statistics: bool, axis_name: AxisName
) -> tuple[Array, ...]:
    q, k = unit_rows(q), unit_rows(k)
    mean, covariance = moments(q, k, axis_name=axis_name)
    if stop_statistics:
        mean, covariance = jax.lax.stop_gradient((mean, covariance))
    return whiten(q, k, mean=mean, covariance=covariance, ridge=eps)


def _cross_entropy_and_asymmetry(
    rows: Array,
    columns: Array,
    temperature: float | Array,
    weight: float | Array,
    scale: SymmetryScale,
    implementation: Implementation,
    axis_name: AxisName,
) -> Array:
    logit_rows = rows / temperature
    spread = row_logsumexp(
        logit_rows, columns, implementation=implementation, axis_name=axis_name
    )
    loss = jnp.mean(spread - positives(logit_rows, columns))
    if isinstance(weight, (int, float)) and weight == 0:
        return loss
    return loss + weight * _asymmetry(rows, columns, scale, axis_name) / temperature


def _asymmetry(q: Array, k: Array, scale: SymmetryScale, axis_name: AxisName) -> Array:
    value = asymmetry(q, k, axis_name=axis_name)
    return value / batch_size(q, axis_name) if scale == "per_sample" else value
