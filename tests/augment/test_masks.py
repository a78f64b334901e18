"""Masks of patches: unions of blocks within a share, drawn by row."""

import functools
import math

import jax
import numpy as np

from jaxclr.augment import block_masks
from jaxclr.steps.row_keys import row_key


def drawn(rng, rows, columns, share):
    """A mask of one image, block after block, as BEiT's appendix describes it."""
    mask, failures = np.zeros((rows, columns), bool), 0
    while (room := share * rows * columns - mask.sum()) > 0 and failures < 10:
        low = (min(rows, columns) // 3) ** 2
        area = low + (room - low) * rng.random()
        aspect = math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        failures += 1
        if height < rows and width < columns:
            top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
            block = np.zeros_like(mask)
            block[top : top + height, left : left + width] = True
            if 0 < (block & ~mask).sum() <= room:
                mask, failures = mask | block, 0
    return mask


def test_masks_are_distributed_as_their_definition():
    """Share of masked patches, each place, and neighbors that are masked together."""
    rng, count, grid = np.random.default_rng(0), 2000, (7, 5)
    want = np.stack([drawn(rng, *grid, rng.uniform(0.2, 0.6)) for _ in range(count)])
    draw = jax.jit(functools.partial(block_masks, ratio=(0.2, 0.6)), static_argnums=(1, 2))
    masks = np.asarray(draw(jax.random.key(0), count, grid, probability=1.0))
    near = lambda one, other: np.testing.assert_allclose(one, other, atol=0.05)
    near(masks.mean(0), want.mean(0))
    near((masks[:, 1:] & masks[:, :-1]).mean(), (want[:, 1:] & want[:, :-1]).mean())
    near((masks[:, :, 1:] & masks[:, :, :-1]).mean(), (want[:, :, 1:] & want[:, :, :-1]).mean())
    shares = masks.mean((1, 2)), want.mean((1, 2))
    assert max(shares[0]) <= 0.6
    near(*(np.quantile(of, np.linspace(0, 1, 5)[1:4]) for of in shares))
    some = np.asarray(draw(jax.random.key(0), count, grid, probability=0.3))
    np.testing.assert_allclose(some.any((1, 2)).mean(), 0.3, atol=0.05)


def test_masks_are_those_of_the_rows():
    key = jax.random.key(3)
    draw = lambda first, rows: block_masks(row_key(key, first, rows), rows, (4, 4))
    draw = jax.jit(draw, static_argnums=1)
    whole = np.asarray(draw(0, 8))
    assert len(np.unique(whole, axis=0)) > 2
    np.testing.assert_array_equal(whole, np.concatenate([draw(0, 4), draw(4, 4)]))
