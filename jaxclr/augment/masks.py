"""Random masks of the patches of an image."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

ATTEMPTS = 10  # blocks in a row that do not fit, after which a mask stays as it is
LEAST_ASPECT = 0.3  # height / width of a block; the largest is its inverse


class _Drawn(NamedTuple):
    """Masks bool [b, rows, columns], failures of each in a row [b], and the number of attempts."""

    masks: Array
    failures: Array
    attempts: Array


def block_masks(
    key: Array,
    images: int,
    grid: tuple[int, int],
    *,
    probability: float = 0.5,
    ratio: tuple[float, float] = (0.1, 0.5),
) -> Array:
    """Masks of random rectangles, as BEiT (arXiv:2106.08254) and iBOT (arXiv:2111.07832) draw them.

    An image is masked with a probability; then the share of its patches to mask is uniform. Blocks
    are added while they fit into what remains of it, so the masked share is at most the drawn one.
    Block areas are uniform, and their aspects log-uniform.

    >>> masks = block_masks(jax.random.key(0), 4, (14, 14), probability=1.0)
    >>> bool((masks.mean((1, 2)) <= 0.5).all() and masks.any((1, 2)).all())
    True

    Args:
      key: typed key []; with one of `jaxclr.steps.row_keys` the masks are those of the rows of the
        global batch.
      images: number of images.
      grid: rows and columns of patches.
      probability: that an image is masked.
      ratio: least and largest share of masked patches.

    Returns:
      bool [images, rows, columns], True for masked patches.
    """
    rows, columns = grid
    row, column = jnp.arange(rows)[None, :, None], jnp.arange(columns)[None, None, :]
    smallest = (min(grid) // 3) ** 2
    first, later = jax.random.split(key)
    chosen, share = jax.random.uniform(first, (images, 2)).T
    share = ratio[0] + (ratio[1] - ratio[0]) * share
    wanted = jnp.where(chosen < probability, share * rows * columns, 0.0)

    def left(masks: Array) -> Array:
        return wanted - masks.sum((1, 2))

    def unfinished(drawn: _Drawn) -> Array:
        return (left(drawn.masks) > 0) & (drawn.failures < ATTEMPTS)

    def add_blocks(drawn: _Drawn) -> _Drawn:
        draws = jax.random.uniform(jax.random.fold_in(later, drawn.attempts), (images, 4)).T
        room = left(drawn.masks)
        area = jnp.maximum(smallest + (room - smallest) * draws[0], 0)
        aspect = jnp.exp(math.log(LEAST_ASPECT) * (2 * draws[1] - 1))
        height, width = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        top = jnp.floor(draws[2] * (rows - height + 1))[:, None, None]
        start = jnp.floor(draws[3] * (columns - width + 1))[:, None, None]
        block = (row >= top) & (row < top + height[:, None, None])
        block &= (column >= start) & (column < start + width[:, None, None])
        added = (block & ~drawn.masks).sum((1, 2))
        fits = (height < rows) & (width < columns) & (added > 0) & (added <= room)
        fits &= unfinished(drawn)
        return _Drawn(
            drawn.masks | (block & fits[:, None, None]),
            jnp.where(fits, 0, drawn.failures + 1),
            drawn.attempts + 1,
        )

    none = jnp.zeros((images, rows, columns), bool)
    drawn = _Drawn(none, jnp.zeros(images, jnp.int32), jnp.int32(0))
    return jax.lax.while_loop(lambda drawn: unfinished(drawn).any(), add_blocks, drawn).masks
