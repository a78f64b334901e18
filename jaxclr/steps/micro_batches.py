"""Embeds a batch in micro-batches; gradients are accumulated, the loss is of the complete batch."""

from collections.abc import Callable
from typing import TypeVar

import jax

Carry = TypeVar("Carry")
Rows = TypeVar("Rows")
Out = TypeVar("Out")


def in_micro_batches(
    embed: Callable[[Carry, Rows], tuple[Carry, Out]], carry: Carry, rows: Rows, *, count: int
) -> tuple[Carry, Out]:
    """Applies `embed` to one micro-batch after the other and concatenates the outputs.

    Activations of a micro-batch are not stored: the backward pass embeds it again and accumulates
    its gradient. A loss of the outputs is therefore the loss of all rows. Its gradient is that of
    all rows if each output depends on its own row only; layers that mix rows, such as BatchNorm,
    use those of the micro-batch.

    Args:
      embed: maps a carry and rows [b / count, ...] to the next carry and the outputs of the rows;
        no gradient flows through the carry.
      carry: the first carry.
      rows: arrays [b, ...], where b is a multiple of count.
      count: number of micro-batches, each of neighboring rows.

    Returns:
      The last carry, and outputs [b, ...] in the order of the rows.
    """
    if count == 1:
        return embed(carry, rows)

    def embed_part(carry: Carry, part: Rows) -> tuple[Carry, Out]:
        carry, out = embed(carry, part)
        return jax.lax.stop_gradient(carry), out

    parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), rows)
    # prevent_cse is not needed inside a scan: XLA cannot merge the two passes there.
    carry, outs = jax.lax.scan(jax.checkpoint(embed_part, prevent_cse=False), carry, parts)
    return carry, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outs)
