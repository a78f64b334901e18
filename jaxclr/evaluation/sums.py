"""Sums over tiles of rows that round alike however the tiles are spread over devices.

A running sum is a pair of float32 arrays: the sum, and what rounding has taken from it so far.
Together they have 48 bits. Terms of one tile of rows are summed as the compiler likes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxclr.affinity.collectives import AxisName, axis_size, gather_rows
from jaxclr.affinity.tiles import fold, pad
from jaxclr.steps.examples import BATCH

Array = jax.Array
Tree = Any

TILE = BATCH  # rows of a tile; devices hold whole tiles of features


class Pair(NamedTuple):
    """A sum of arrays of one shape, and what rounding has taken from it."""

    high: Array
    rest: Array


class Sums(NamedTuple):
    """Sums over tiles of rows.

    Attributes:
      scalars: a tree of the terms of all tiles, [tiles], which the host sums.
      arrays: a tree of pairs, or of their sums after `finish`.
    """

    scalars: Tree
    arrays: Tree


def add(one: Pair, other: Pair) -> Pair:
    """The sum of two pairs: Knuth's two-sum of their large parts."""
    total = one.high + other.high
    of_other = total - one.high
    lost = (one.high - (total - of_other)) + (other.high - of_other)
    return Pair(total, one.rest + other.rest + lost)


def sum_tiles(function: Callable[[Tree], Sums], rows: Tree) -> Sums:
    """Sums a function of each tile of rows.

    Args:
      function: of rows [n, ...], n at most TILE, to scalars and pairs; rows of zeros, with which
        the last tile is filled up, must add zeros.
      rows: a tree of arrays [N, ...].
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    tiles = fold(rows, (-(-count // TILE), min(TILE, count)))
    first = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], tiles)).arrays
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)

    def one(total: Tree, tile: Tree) -> tuple[Tree, Tree]:
        scalars, terms = function(tile)
        return add_trees(total, terms), scalars

    arrays, scalars = jax.lax.scan(one, zeros, tiles)
    return Sums(scalars, arrays)


def add_trees(one: Tree, other: Tree) -> Tree:
    """Adds the pairs of two trees."""
    return jax.tree.map(add, one, other, is_leaf=_is_pair)


def as_pairs(terms: Tree) -> Tree:
    """A tree of arrays as pairs that have lost nothing."""
    return jax.tree.map(lambda term: Pair(term, jnp.zeros_like(term)), terms)


def sum_rows(x: Array) -> Pair:
    """The sum over rows [n, ...], which are added two by two."""
    pair = Pair(x, jnp.zeros_like(x))
    while len(pair.high) > 1:
        half = -(-len(pair.high) // 2)
        pair = add(
            Pair(*(leaf[:half] for leaf in pair)), Pair(*(pad(leaf[half:], half) for leaf in pair))
        )
    return Pair(*(leaf[0] for leaf in pair))


def finish(sums: Sums, axis_name: AxisName) -> Sums:
    """The sums over devices, on every device; arrays are rounded to float32."""
    scalars = jax.tree.map(lambda leaf: gather_rows(leaf, axis_name), sums.scalars)
    over_devices = functools.partial(_over_devices, axis_name=axis_name)
    return Sums(scalars, jax.tree.map(over_devices, sums.arrays, is_leaf=_is_pair))


def _over_devices(pair: Pair, axis_name: AxisName) -> Array:
    if axis_name is None:
        return pair.high + pair.rest
    devices, shape = axis_size(axis_name), pair.high.shape

    def exchanged(leaf: Array) -> Array:
        """Each device gets its part of the entries from all: [devices, part]."""
        flat = pad(leaf.reshape(-1), -(-leaf.size // devices) * devices)
        return jax.lax.all_to_all(flat.reshape(devices, -1), axis_name, 0, 0, tiled=True)

    parts = Pair(*map(exchanged, pair))
    zeros = jnp.zeros(parts.high.shape[1:])
    add_one = lambda total, part: (add(total, part), None)
    total = jax.lax.scan(add_one, Pair(zeros, zeros), parts)[0]
    return gather_rows(total.high + total.rest, axis_name)[: math.prod(shape)].reshape(shape)


def _is_pair(leaf: Any) -> bool:
    return isinstance(leaf, Pair)
