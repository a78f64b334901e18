"""Embedding a batch in parts, with memory for one: the gradient is accumulated, the loss is not."""

from collections.abc import Callable
from typing import TypeVar

import jax

Carry = TypeVar("Carry")
Rows = TypeVar("Rows")
Out = TypeVar("Out")


def in_micro_batches(
    embed: Callable[[Carry, Rows], tuple[Carry, Out]], carry: Carry, rows: Rows, *, count: int
) -> tuple[Carry, Out]:
    """What `embed` makes of all rows, from one micro-batch after the other.

    Of a micro-batch its rows alone are kept. Differentiated, each is embedded again, its share of the gradient is taken and
    added to the sum. A loss of the outputs is thus that of all rows at once, and so is its gradient wherever an output
    depends on its own row alone; what depends on the others, as in BatchNorm, sees those of the micro-batch.

    Args:
      embed: takes a carry and rows [b / count, ...]; gives the next carry, which no gradient goes through, and outputs by row.
      carry: the first.
      rows: arrays [b, ...], of which b is a multiple of count.
      count: how many micro-batches, of neighbouring rows.

    Returns:
      The last carry, and outputs [b, ...] in the order of the rows.
    """
    if count == 1:
        return embed(carry, rows)

    def embed_part(carry: Carry, part: Rows) -> tuple[Carry, Out]:
        carry, out = embed(carry, part)
        return jax.lax.stop_gradient(carry), out

    parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), rows)
    # In a loop nothing is shared between the two passes, which prevent_cse would otherwise have to see to.
    carry, outs = jax.lax.scan(jax.checkpoint(embed_part, prevent_cse=False), carry, parts)
    return carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outs)
