"""The method of alignment and uniformity on the sphere."""

import dataclasses

import jax

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Shared, Target, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class AlignUniform(Method):
    """Distance of positives, and the mean Gaussian potential of all pairs of a view's rows (arXiv:2005.10242)."""

    alignment: float = 1.0
    """Weight of the distance of positives; zero or more."""

    uniformity: float = 1.0
    """Weight of the logarithm of the mean potential, of both views on average; zero or more."""

    alpha: float = 2.0
    """Power of the distance; positive."""

    t: float = 2.0
    """Of the potential exp(-t |x - y|^2); positive."""

    projector: Mlp = Mlp(layers=2, hidden=4096, out=128)
    """Head from representations to embeddings."""

    predictor: Mlp | None = None
    """Head from embeddings to predictions of the targets; None: predictions are the embeddings."""

    target: Target = Shared()
    """What predictions are compared with."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        apart = losses.alignment(*out.embeddings, alpha=self.alpha, axis_name=axis_name)
        close = [losses.uniformity(z, t=self.t, axis_name=axis_name) for z in out.embeddings]
        return self.alignment * apart + self.uniformity * sum(close) / 2
