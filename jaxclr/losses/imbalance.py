"""Losses for classes of unequal size."""

import numbers

import jax
import jax.numpy as jnp

from jaxclr.affinity import (
    AxisName,
    check_floats,
    check_ids,
    check_mask,
    check_positive,
    gather_rows,
    positives,
    row_logsumexp_of,
    sum_over,
    unit_rows,
)
from jaxclr.affinity.collectives import axis_size

Array = jax.Array


def balanced_contrast(
    features: Array,
    class_centres: Array,
    targets: Array,
    reliable_negatives: Array,
    confidence: Array,
    frequencies: Array,
    *,
    progress: float | Array,
    temperature: float | Array = 0.1,
    adjustment: float | Array = 0.005,
    negative_weight: float | Array = 64.0,
    axis_name: AxisName = None,
) -> Array:
    r"""Contrast of confident features with class centers, cooler for frequent classes (BaCon).

    .. math:: \frac{1}{\sum_i m_i} \sum_i m_i \log \Big( 1 + \lambda M_{y_i} e^{-p_i} \Big), \qquad
       p_i = \frac{\cos(f_i, \operatorname{sg} a_{y_i})}{\tau_{y_i}}, \qquad
       \tau_c = \tau \Big( 1 - \epsilon (1 - t)^2 \sqrt{n_c / \max n} \Big)

    with :math:`M_c` the mean of :math:`e^{\cos(f_i, f_j) / \tau}` over all rows i of class c,
    confident or not, and all reliable negatives j of c, of all devices: one number for a class, as
    in the official code. A class without negatives counts 0.

    Needs: labels, class centers, reliable negatives.
    Cost: B²D.
    Global batch: means by class.

    >>> features, centers = jax.random.normal(jax.random.key(0), (2, 8, 4))
    >>> targets, sure = jnp.arange(8), jnp.ones(8, bool)
    >>> images = (targets, ~jnp.eye(8, dtype=bool), sure, jnp.full(8, 10.0))
    >>> round(float(losses.balanced_contrast(features, centers, *images, progress=0.5)), 2)
    6.83

    Args:
      features: f, projections of labeled and of weakly augmented unlabeled images, [b, D], any
        float dtype; rows are normalized here. Gradients reach them as anchors and as negatives.
      class_centres: a, a mean of confident features for each class, [C, D], whole on every device;
        no gradient.
      targets: y, integers [b]: the label, or the most probable class where there is none.
      reliable_negatives: booleans [b, C]: whether an image is surely not of that class. The paper
        takes, for a labeled image, all classes but its own, and for another those outside its three
        most probable ones; never its target.
      confidence: m, booleans [b]: whether the image counts as an anchor (the paper: probability of
        at least 0.98).
      frequencies: n, how many images each class has so far, [C] floats, whole on every device; only
        their ratios count; no gradient.
      progress: t, the part of the training that is done, 0 to 1. The paper adds this loss from a
        third of it on.
      temperature: tau; positive.
      adjustment: epsilon, by how much the most frequent class is cooler at the start; below 1.
      negative_weight: lambda; positive.
      axis_name: mapped axis over which the batch is spread; None if these are all of it.

    Returns:
      This device's share of the loss. Without confident rows it is 0.

    Raises:
      TypeError: an array is of another type than said, or a hyper-parameter is not a number.
      ValueError: shapes do not fit, a target is no class, or a hyper-parameter is out of range.

    References:
      Feng et al., BaCon: Boosting Imbalanced Semi-supervised Learning via Balanced Feature-Level
      Contrastive Learning, 2024 (arXiv:2403.12986).
    """
    features, class_centres, frequencies = check_floats(
        features=(features, "b D"),
        class_centres=(class_centres, "C D"),
        frequencies=(frequencies, "C"),
    )
    rows, classes = len(features), len(class_centres)
    targets = check_ids("targets", targets, rows, below=classes)
    reliable = check_mask("reliable_negatives", reliable_negatives, rows, classes)
    confidence = check_mask("confidence", confidence, rows)
    _check_part("progress", progress)
    _check_part("adjustment", adjustment, one=False)
    check_positive("temperature", temperature)
    check_positive("negative_weight", negative_weight)

    unit = unit_rows(features)
    centers, frequencies = jax.lax.stop_gradient((unit_rows(class_centres), frequencies))
    share = frequencies / jnp.maximum(jnp.max(frequencies), jnp.finfo(frequencies.dtype).tiny)
    temperatures = temperature * (1 - adjustment * (1 - progress) ** 2 * jnp.sqrt(share))
    positive = positives(unit, centers[targets]) / temperatures[targets]

    def reliably(products: Array, own: Array, reliable: Array) -> Array:
        # Gathering rows of the transposed mask is much faster than gathering its entries.
        return jnp.where(reliable[0].T[own[:, 0]], products, -jnp.inf)

    logsumexp = row_logsumexp_of(
        reliably,
        unit / temperature,
        unit,
        row_values=(targets,),
        column_values=(reliable,),
        axis_name=axis_name,
    )
    members = jax.nn.one_hot(targets, classes, dtype=unit.dtype)
    anchors, negatives = sum_over(
        (jnp.sum(members, axis=0), jnp.sum(reliable.astype(unit.dtype), axis=0)), axis_name
    )
    mean = _logsumexp_by_class(logsumexp, members, axis_name) - jnp.log(
        jnp.maximum(anchors * negatives, jnp.ones_like(anchors))
    )
    counts = confidence & (negatives[targets] > 0)
    weight = jnp.log(jnp.asarray(negative_weight, unit.dtype))
    each = jax.nn.softplus(weight + mean[targets] - positive)
    confident = sum_over(jnp.sum(confidence.astype(unit.dtype)), axis_name)
    local = jnp.sum(jnp.where(counts, each, jnp.zeros_like(each)))
    return axis_size(axis_name) * local / jnp.maximum(confident, jnp.ones_like(confident))


def _logsumexp_by_class(values: Array, members: Array, axis_name: AxisName) -> Array:
    """Log-sum-exp [C] of the values [b] by class, over all devices; 0 for a class without rows."""
    local = jnp.max(jnp.where(members > 0, values[:, None], -jnp.inf), axis=0)
    largest = jnp.max(gather_rows(jax.lax.stop_gradient(local)[None], axis_name), axis=0)
    shift = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    exponentials = members * jnp.exp(
        jnp.where(members > 0, values[:, None] - shift[None], -jnp.inf)
    )
    total = sum_over(jnp.sum(exponentials, axis=0), axis_name)
    return jnp.log(jnp.where(total > 0, total, jnp.ones_like(total))) + shift


def _check_part(name: str, value: object, *, one: bool = True) -> None:
    """Raises ValueError for a Python number that is not from 0 to 1; arrays and tracers pass."""
    check_positive(name, value, zero=True)
    if isinstance(value, numbers.Real) and (float(value) > 1 or (value == 1 and not one)):
        raise ValueError(f"{name} must be {'at most' if one else 'below'} 1, got {value}.")
