"""Overlapping local units of an encoder's stages, and their decoders (LoCo)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxclr.encoders.heads import Mlp, MlpModule
from jaxclr.encoders.layers import AxisName, Precision
from jaxclr.encoders.resnet import Bottleneck

Array = jax.Array


def local_units(encoder: nn.Module, images: Array, train: bool) -> tuple[Array, ...]:
    """Outputs [b, h, w, c] of the units of two consecutive stages, without gradient between units.

    Unit u has the stages u and u + 1. The gradient of its output reaches the parameters of these
    two stages alone. Values are those of the encoder: a stage of two units is computed once.

    Args:
      encoder: a bound Linen module with `stages`, their number, and `stage(index, x, train)`, such
        as those of `ResNet` and `SmallConv`.
      images: [b, h, w, c].
      train: as of the encoder.
    """
    bottom = encoder.stage(0, images, train)  # pyright: ignore[reportAttributeAccessIssue]
    units = []
    for index in range(1, encoder.stages):  # pyright: ignore[reportAttributeAccessIssue]
        stage = lambda module, x, index=index: module.stage(index, x, train)
        top, bottom = _shared(stage, encoder, bottom)
        units.append(top)
    return tuple(units)


def _shared(
    stage: Callable[[Any, Array], Array], encoder: nn.Module, x: Array
) -> tuple[Array, Array]:
    """A stage's output twice: as the end of one unit, and as the start of the next.

    The gradient of the first reaches parameters and x, that of the second parameters alone. Both
    come from one forward pass: the pullback is linear, so that one pass back of the sum gives the
    gradient of the parameters, and another one of the first that of x.
    """

    def call(module: nn.Module, x: Array) -> tuple[Array, Array]:
        y = stage(module, x)
        return y, y

    # All variables are arguments: running statistics of a view before may have a gradient.
    def forward(module: nn.Module, x: Array) -> tuple[tuple[Array, Array], Any]:
        y, pullback = nn.vjp(stage, module, x, vjp_variables=True)
        return (y, y), pullback

    def backward(pullback: Any, gradients: tuple[Array, Array]) -> tuple[Any, Array]:
        end, start = gradients
        of_variables, _ = pullback(end + start)
        _, of_x = pullback(end)
        return of_variables, of_x

    transform = nn.custom_vjp(call, forward_fn=forward, backward_fn=backward, grad_vars=True)
    return transform(encoder, x)


class Decoders(nn.Module):
    """A decoder for each unit: the outputs of `local_units` to embeddings, side by side.

    A decoder has residual blocks, the spatial mean and a projector. That of the last unit has no
    blocks: the spatial mean of its output is the representation.

    Attributes:
      blocks: residual blocks of each decoder except the last.
      projector: of each decoder, with its own weights.
      axis_name: mapped axis for the statistics of norms.
      dtype: precision of the computation.
    """

    blocks: int
    projector: Mlp
    axis_name: AxisName
    dtype: Precision

    @nn.compact
    def __call__(self, units: tuple[Array, ...], train: bool) -> Array:
        """Embeddings [b, U * D] of outputs [b, h, w, c] of U units."""
        embeddings = []
        for unit, x in enumerate(units):
            for index in range(self.blocks if unit < len(units) - 1 else 0):
                x = Bottleneck(
                    width=-(-x.shape[-1] // 4),
                    stride=1,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f"unit{unit}_block{index}",
                )(x, train)
            projector = MlpModule(
                self.projector, self.axis_name, self.dtype, name=f"unit{unit}_projector"
            )
            embeddings.append(projector(jnp.mean(x, axis=(1, 2)), train))
        return jnp.concatenate(embeddings, axis=-1)
