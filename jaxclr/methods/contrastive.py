"""Contrastive methods with negatives from the batch."""

import dataclasses
import functools
from typing import Annotated

import jax
from annotated_types import Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Predictive, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SimClr(Method):
    """NT-Xent between two views of a shared encoder (SimCLR, arXiv:2002.05709)."""

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, last_norm=True, last_affine="scale")
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.nt_xent(*out.embeddings, temperature=self.temperature, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class MocoV3(Predictive):
    """InfoNCE with keys of a momentum encoder, in both directions (MoCo v3, arXiv:2104.02057)."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the affinities; the loss is multiplied by twice the temperature."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = functools.partial(losses.info_nce, temperature=self.temperature, axis_name=axis_name)
        (q1, q2), (k1, k2) = out.predictions, out.targets
        return 2 * self.temperature * (loss(q1, k2) + loss(q2, k1))


@dataclasses.dataclass(frozen=True)
class Dcl(Method):
    """InfoNCE without positives in the denominator, in both directions (DCL, arXiv:2110.06848).

    The projector is that of SimCLR, as in the paper.
    """

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, last_norm=True, last_affine="scale")
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = functools.partial(losses.dcl, temperature=self.temperature, axis_name=axis_name)
        z1, z2 = out.embeddings
        return loss(z1, z2) + loss(z2, z1)


@dataclasses.dataclass(frozen=True)
class Dclw(Dcl):
    """DCL with larger weights for hard positives (DCLW, arXiv:2110.06848)."""

    sigma: Annotated[float, Gt(0)] = 0.5
    """Temperature of the softmax over positives that gives their weights."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = functools.partial(
            losses.dcl,
            temperature=self.temperature,
            weighting="von_mises_fisher",
            sigma=self.sigma,
            axis_name=axis_name,
        )
        z1, z2 = out.embeddings
        return loss(z1, z2) + loss(z2, z1)
