"""Alignment and uniformity on the sphere."""

import dataclasses
from typing import Annotated

import jax
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class AlignUniform(Method):
    """Alignment of positives and uniformity of each view on the sphere (arXiv:2005.10242)."""

    alignment: Annotated[float, Ge(0)] = 1.0
    """Weight of the distance of positives."""

    uniformity: Annotated[float, Ge(0)] = 1.0
    """Weight of the uniformity, the logarithm of the mean potential of both views."""

    alpha: Annotated[float, Gt(0)] = 2.0
    """Power of the distance."""

    t: Annotated[float, Gt(0)] = 2.0
    """Scale of the potential exp(-t |x - y|^2)."""

    projector: Mlp = Mlp(layers=2, hidden=4096, out=128, bias=True)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        apart = losses.alignment(*out.embeddings, alpha=self.alpha, axis_name=axis_name)
        close = [losses.uniformity(z, t=self.t, axis_name=axis_name) for z in out.embeddings]
        return self.alignment * apart + self.uniformity * sum(close) / 2
