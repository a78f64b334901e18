"""UniCLR: row cross-entropy, whitening, trace and symmetry of the affinity matrix.

All follow Li et al., A Unified Framework for Contrastive Learning from a Perspective of Affinity
Matrix, 2022 (arXiv:2211.14516) as its official code defines them for one device, and take the batch
of all devices where that code takes each device's own. The code adds loss(q1, k2) + loss(q2, k1),
with k constant: that is the method's choice.
"""

import functools
from typing import Any

import jax

from jaxclr.affinity import (
    AxisName,
    Implementation,
    batch_size,
    check_choice,
    check_embeddings,
    check_positive,
)
from jaxclr.losses.compose import (
    SYMMETRY_SCALES,
    SymmetryScale,
    Transform,
    affinity_loss,
    asymmetry,
    trace,
    whitened,
)

Array = jax.Array


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
    r"""Row cross-entropy of the affinity matrix plus its asymmetry (SimAffinity).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right]
       + \gamma \|A - A^\top\|_F,
       \qquad A = \hat Q \hat K^\top / \tau

    Needs: negatives.
    Cost: B²D.
    Global batch: row sums, asymmetry.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.sim_affinity(q, k, temperature=0.2)), 2)
    3.03

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      symmetry_weight: gamma; zero or more.
      symmetry_scale: "frobenius" as written, which grows with the batch, or "per_sample", divided
        by B, which does not.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: q or k is not an array of floats, or a hyper-parameter is not a number.
      ValueError: q and k differ in shape or are not matrices, or a hyper-parameter is out of range.

    References:
      Li et al., arXiv:2211.14516, SimAffinity.
    """
    return affinity_loss(
        q,
        k,
        **_symmetry(symmetry_weight, symmetry_scale),
        temperature=temperature,
        implementation=implementation,
        axis_name=axis_name,
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
    r"""Row cross-entropy of the whitened affinity matrix plus its asymmetry (SimWhitening).

    .. math:: \frac1B \sum_i \left[ \log \sum_j e^{A_{ij}} - A_{ii} \right]
       + \gamma \|A - A^\top\|_F,
       \qquad A = \frac{1}{c \tau} (\hat Q - \mu)(\Sigma + \epsilon I)^{-1}(\hat K - \mu)^\top

    with one mean and covariance over the rows of both views of the global batch.

    Needs: negatives.
    Cost: B²D + D³.
    Global batch: row sums, asymmetry, mean and covariance.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.sim_whitening(q, k, temperature=0.2)), 2)
    2.11

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      symmetry_weight: gamma; zero or more.
      symmetry_scale: "frobenius" as written, which grows with the batch, or "per_sample", divided
        by B, which does not.
      eps: added to the diagonal of the covariance, whose trace is at most 1; positive.
      logit_divisor: c; None divides by the B rows of the global batch, as the official code does on
        one device, so that logits flatten as the batch grows; a number, for instance D, does not
        depend on it.
      stop_statistics: hold mean and covariance constant in the gradient; the official code does
        not.
      implementation: as of `jaxclr.affinity.row_logsumexp`.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: q or k is not an array of floats, or a hyper-parameter is not a number.
      ValueError: q and k differ in shape or are not matrices, or a hyper-parameter is out of range.

    References:
      Li et al., arXiv:2211.14516, SimWhitening.
    """
    q, k = check_embeddings(q=q, k=k)
    if logit_divisor is None:
        logit_divisor = batch_size(q, axis_name)
    check_positive("temperature", temperature)
    check_positive("logit_divisor", logit_divisor)
    return affinity_loss(
        q,
        k,
        transform=_whitened(eps, stop_statistics),
        **_symmetry(symmetry_weight, symmetry_scale),
        temperature=temperature * logit_divisor,
        implementation=implementation,
        axis_name=axis_name,
    )


def sim_trace(
    q: Array,
    k: Array,
    *,
    eps: float | Array = 0.01,
    stop_statistics: bool = True,
    axis_name: AxisName = None,
) -> Array:
    r"""Negative mean trace of the whitened affinity matrix (SimTrace).

    .. math:: -\frac{1}{B} \operatorname{tr}\left[(\hat Q - \mu)\,(\Sigma + \epsilon I)^{-1}
       (\hat K - \mu)^\top\right]

    with unit rows, and one mean and covariance over the rows of both views of the global batch.
    Only D x D matrices are formed: O(BD^2 + D^3) time, O(BD + D^2) memory. Full collapse gives 0,
    the worst value.

    Needs: two views.
    Cost: BD² + D³.
    Global batch: mean and covariance.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.sim_trace(q, k)), 2)
    -0.82

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      k: embeddings of the other view, [b, D].
      eps: added to the diagonal of the covariance, whose trace is at most 1; positive.
      stop_statistics: hold mean and covariance constant in the gradient, as the official code does.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss.

    Raises:
      TypeError: q or k is not an array of floats, or eps is not a number.
      ValueError: q and k differ in shape or are not matrices, or eps is not positive.

    References:
      Li et al., arXiv:2211.14516, SimTrace.
    """
    transform = _whitened(eps, stop_statistics)
    return affinity_loss(q, k, transform=transform, readout=trace, axis_name=axis_name)


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

    Needs: two views.
    Cost: BD².
    Global batch: three Grams.

    >>> q, k = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> round(float(losses.symmetric_loss(q, k, temperature=0.2)), 2)
    22.77

    Args:
      q: embeddings of one view, [b, D], any float dtype; rows are normalized here.
      k: embeddings of the other view, [b, D].
      temperature: tau; positive.
      scale: "frobenius" as written, which grows with the batch, or "per_sample", divided by B,
        which does not.
      axis_name: mapped axis over which the batch is spread; None if q and k are all of it.

    Returns:
      This device's share of the loss: the norm for the global batch, the same on every device.

    Raises:
      TypeError: q or k is not an array of floats, or temperature is not a number.
      ValueError: q and k differ in shape or are not matrices, or a hyper-parameter is out of range.

    References:
      Li et al., arXiv:2211.14516, the symmetric loss.
    """
    readout = functools.partial(asymmetry, scale=scale)
    return affinity_loss(q, k, readout=readout, temperature=temperature, axis_name=axis_name)


def _whitened(eps: float | Array, stop_statistics: bool) -> Transform:
    """The transform whose covariance is always regularized: eps must be positive."""
    check_positive("eps", eps)
    return functools.partial(whitened, eps=eps, stop_statistics=stop_statistics)


def _symmetry(weight: float | Array, scale: SymmetryScale) -> dict[str, Any]:
    """The regularizer of UniCLR and its weight, by the names of `affinity_loss`."""
    check_positive("symmetry_weight", weight, zero=True)
    check_choice("symmetry_scale", scale, SYMMETRY_SCALES)
    return {
        "regularizer": functools.partial(asymmetry, scale=scale),
        "regularizer_weight": weight,
    }
