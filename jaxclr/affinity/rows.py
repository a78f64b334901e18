"""Rows of unit length, their inner products, and the contrast of a logit with others."""

import functools

import jax
import jax.numpy as jnp

Array = jax.Array

_SHORTEST = 1e-12


def unit_rows(rows: Array) -> Array:
    r"""Rows divided by their Euclidean norm, :math:`v / \max(\|v\|, 10^{-12})`.

    Each row is first scaled by its largest entry, so that neither huge nor tiny rows overflow or
    vanish when squared. Rows all of whose entries are below 1e-12 are divided by 1e-12 and receive
    no gradient.

    >>> jaxclr.affinity.unit_rows(jnp.array([[3.0, 4.0]]))
    Array([[0.6, 0.8]], dtype=float32)

    Args:
      rows: [..., D], float32 or float64.

    Returns:
      [..., D] of the same type.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=-1, keepdims=True))
    short = largest < _SHORTEST
    scaled = rows / jnp.where(short, jnp.ones_like(largest), largest)
    squares = jnp.sum(scaled * scaled, axis=-1, keepdims=True)
    unit = scaled * jax.lax.rsqrt(jnp.where(short, jnp.ones_like(squares), squares))
    return jnp.where(short, jax.lax.stop_gradient(rows) / _SHORTEST, unit)


def positives(rows: Array, columns: Array) -> Array:
    """The diagonal of the affinity matrix, inner products of row i and column i: [b].

    >>> jaxclr.affinity.positives(jnp.eye(3), jnp.eye(3))
    Array([1., 1., 1.], dtype=float32)
    """
    return jnp.sum(rows * columns, axis=-1)


def contrast(positive: Array, *negatives: Array) -> Array:
    r"""Cross-entropy of a positive logit among negatives, given their log-sum-exps.

    .. math:: \log \Big( 1 + \sum_n e^{r_n - s} \Big)
       = \log \Big( e^s + \sum_n e^{r_n} \Big) - s

    The left form has one value of s, is never negative and stays accurate near 0; in the right one
    two roundings of s, by different products, do not cancel.

    Args:
      positive: s, any shape.
      *negatives: r, log-sum-exps of disjoint sets of negatives, of the same shape; -inf for an
        empty set.

    Returns:
      The cross-entropy, in the same shape.
    """
    margins = (one - positive for one in negatives)
    return functools.reduce(jnp.logaddexp, margins, jnp.zeros_like(positive))
