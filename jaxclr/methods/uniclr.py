"""UniCLR's methods (arXiv:2211.14516): those of the official code, and the plain SimTrace."""

import dataclasses
import functools
from typing import Annotated

import jax
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.losses.uniclr import SymmetryScale
from jaxclr.methods.base import Method, Outputs, Predictive, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SimAffinity(Predictive):
    """Row cross-entropy of the affinity matrix plus its asymmetry (UniCLR, arXiv:2211.14516)."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the affinities."""

    symmetry_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the asymmetry of the affinity matrix."""

    symmetry_scale: SymmetryScale = "frobenius"
    """frobenius: the official norm, which grows with the batch; per_sample: over the batch."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = functools.partial(
            losses.sim_affinity,
            temperature=self.temperature,
            symmetry_weight=self.symmetry_weight,
            symmetry_scale=self.symmetry_scale,
            axis_name=axis_name,
        )
        (q1, q2), (k1, k2) = out.predictions, out.targets
        return loss(q1, k2) + loss(q2, k1)


@dataclasses.dataclass(frozen=True)
class SimWhitening(Predictive):
    """SimAffinity of the whitened affinity matrix (UniCLR, arXiv:2211.14516)."""

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the affinities."""

    symmetry_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the asymmetry of the affinity matrix."""

    symmetry_scale: SymmetryScale = "frobenius"
    """frobenius: the official norm, which grows with the batch; per_sample: over the batch."""

    eps: Annotated[float, Gt(0)] = 0.01
    """Ridge added to the covariance."""

    logit_divisor: Annotated[float, Gt(0)] | None = None
    """Divides the affinities too; None: the global batch size, as officially on one device."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = functools.partial(
            losses.sim_whitening,
            temperature=self.temperature,
            symmetry_weight=self.symmetry_weight,
            symmetry_scale=self.symmetry_scale,
            eps=self.eps,
            logit_divisor=self.logit_divisor,
            axis_name=axis_name,
        )
        (q1, q2), (k1, k2) = out.predictions, out.targets
        return loss(q1, k2) + loss(q2, k1)


@dataclasses.dataclass(frozen=True)
class SimTrace(Predictive):
    """Negative trace of the whitened affinity matrix (UniCLR, arXiv:2211.14516)."""

    eps: Annotated[float, Gt(0)] = 0.01
    """Ridge added to the covariance."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = functools.partial(losses.sim_trace, eps=self.eps, axis_name=axis_name)
        (q1, q2), (k1, k2) = out.predictions, out.targets
        return loss(q1, k2) + loss(q2, k1)


@dataclasses.dataclass(frozen=True)
class SimTracePlain(Method):
    """SimTrace without predictor, momentum encoder and stop-gradient (UniCLR, arXiv:2211.14516).

    The form of the paper's abstract. The trace is the same in both directions and is computed once.
    """

    eps: Annotated[float, Gt(0)] = 0.01
    """Ridge added to the covariance."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        z1, z2 = out.embeddings
        return losses.sim_trace(z1, z2, eps=self.eps, stop_statistics=False, axis_name=axis_name)
