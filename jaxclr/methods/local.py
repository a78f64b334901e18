"""Methods whose loss and gradient are local to parts of the encoder."""

import dataclasses
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp, Precision
from jaxclr.encoders.local import Decoders, local_units
from jaxclr.errors import UserError
from jaxclr.methods.base import Branch, Method, Network, Outputs, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Loco(Method):
    """NT-Xent of overlapping local units, without gradient between them (LoCo, arXiv:2008.01342).

    A unit is two consecutive stages of the encoder. Each stage but the first and the last belongs
    to two units. Each unit has a decoder, and its loss trains its stages and decoder alone. The
    representation is that of the encoder, which is a ResNet or a `SmallConv`. An embedding has the
    embeddings of all units side by side.

    A reconstruction: no official code was found. The stem belongs to the first stage, and all
    units' losses have weight 1. That deeper decoders help is the paper's finding; the number of
    blocks and their kind, bottlenecks that are initially the identity, are ours. Loss and
    projectors are SimCLR's, as in the paper.

    All units are trained by one program, which needs more memory than end-to-end training: 1.3 to
    1.6 times SimCLR's temporaries for the gradient of a `SmallConv` on a CPU.
    """

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities."""

    decoder_blocks: Annotated[int, Ge(0)] = 1
    """Residual blocks between each unit, except the last, and its projector."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, last_norm=True, last_affine="scale")
    """Head from the spatial mean of a decoder's blocks to embeddings; each has its own weights."""

    def network(self, encoder: Any, axis_name: AxisName) -> Network:
        whole = super().network(encoder, axis_name)
        if getattr(whole.encoder, "stages", 0) < 2:
            raise UserError(
                "Loco needs an encoder of at least two stages, a ResNet or a SmallConv, got "
                f"{type(encoder).__name__}; set --encoder, or choose another --method."
            )
        return LocalNetwork(whole.encoder, whole.projector)

    def build_projector(self, axis_name: AxisName, dtype: Precision) -> nn.Module:
        return Decoders(self.decoder_blocks, self.projector, axis_name, dtype)

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        units = out.embeddings[0].shape[1] // self.projector.out
        split = lambda z: jnp.split(z, units, axis=1)
        pairs = list(zip(*map(split, out.embeddings), strict=True))
        return losses.local_contrast(pairs, temperature=self.temperature, axis_name=axis_name)


class LocalNetwork(Network):
    """A network whose projector takes the outputs of local units."""

    def __call__(self, x: Tree, train: bool, view: int = 0) -> Branch:
        units = local_units(self.encoder, x, train)
        embedding = self.projector(units, train)
        return Branch(jnp.mean(units[-1], axis=(1, 2)), embedding, embedding)
