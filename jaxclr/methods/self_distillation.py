"""Self-distillation: methods without negatives."""

import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Interval

from jaxclr import losses
from jaxclr.affinity import AxisName, batch_size, gather_rows, row_ids, second_moment
from jaxclr.encoders import Mlp
from jaxclr.methods.base import (
    Method,
    MomentumEncoder,
    Outputs,
    Predictive,
    Sizes,
    StopGradient,
    Target,
    Tree,
)

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Byol(Predictive):
    """Predicts the other view's embedding of a momentum encoder (BYOL, arXiv:2006.07733).

    The momentum is that of 1000 epochs; the paper's is 0.99 for 100 and 300.
    """

    one_row: ClassVar[bool] = True

    projector: Mlp = Mlp(layers=2, hidden=4096, out=256)
    """Head from representations to embeddings."""

    target: Target = MomentumEncoder(momentum=0.996, update="after_update")
    """Targets of the predictions."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.byol(*out.predictions, *out.targets, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class DirectPred(Method):
    """BYOL, predictor from the eigenvectors of embeddings (DirectPred, arXiv:2102.06810).

    The state is the running correlation of embeddings; it is updated before the predictor is made.
    Officially the predictor of a step is that of the step before.
    """

    one_row: ClassVar[bool] = True

    eps: Annotated[float, Ge(0)] = 0.01
    """Added to the coefficient of each eigenvector; the largest is 1 without it."""

    correlation_momentum: Annotated[float, Interval(ge=0, le=1)] = 0.3
    """Weight of the previous running correlation in a step; 0 in the first step."""

    projector: Mlp = Mlp(layers=2, hidden=512, out=128, bias=True)
    """Head from representations to embeddings."""

    target: Target = MomentumEncoder(momentum=0.996, ramp=False, update="after_update")
    """Targets of the predictions."""

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        return jnp.zeros((sizes.embedding, sizes.embedding))

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        rows = (z.astype(state.dtype) for z in out.embeddings)
        batch = jax.lax.stop_gradient(second_moment(*rows, axis_name=axis_name))
        kept = jnp.where(out.step == 0, 0.0, self.correlation_momentum)
        return kept * state + (1 - kept) * batch

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        # The step computes the same expression for the next state; XLA merges them.
        known = self.next_state(out, state, axis_name)
        return self._loss(*out.embeddings, *out.targets, known, eps=self.eps, axis_name=axis_name)

    def _loss(self, *arrays: Array, **settings: Any) -> Array:
        return losses.direct_pred(*arrays, **settings)


@dataclasses.dataclass(frozen=True)
class DirectCopy(DirectPred):
    """BYOL, predictor from the correlation of embeddings itself (DirectCopy, arXiv:2110.04947)."""

    eps: Annotated[float, Ge(0)] = 0.3
    """Added to the diagonal of the correlation."""

    correlation_momentum: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Weight of the previous running correlation in a step; 0 in the first step."""

    def _loss(self, *arrays: Array, **settings: Any) -> Array:
        return losses.direct_copy(*arrays, **settings)


@dataclasses.dataclass(frozen=True)
class SimSiam(Predictive):
    """Predicts the other view's embedding, with stop-gradient (SimSiam, arXiv:2011.10566).

    The predictor's learning rate does not decay.
    """

    one_row: ClassVar[bool] = True
    constant_rate: ClassVar[tuple[str, ...]] = ("predictor",)

    projector: Mlp = Mlp(layers=3, hidden=2048, out=2048, last_norm=True)
    """Head from representations to embeddings."""

    predictor: Mlp | None = Mlp(layers=2, hidden=512, out=2048, bias=True)
    """Head from embeddings to predictions; None: the embeddings are the predictions."""

    target: Target = StopGradient()
    """Targets of the predictions."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.sim_siam(*out.predictions, *out.targets, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class SimSiamGsg(SimSiam):
    """SimSiam with guided stop-gradient (GSG, arXiv:2503.09058).

    Of the crops of two images only the nearest pair moves, each crop towards the other crop of its
    image.

    Image i of the global batch is paired with image r(i), for a random permutation r. Every image
    is in two pairs with the same two crops; the paper loads two further crops for the second pair.
    """

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        count = batch_size(out.indices, axis_name)
        partners = jax.random.permutation(out.key, count)[row_ids(out.indices, axis_name)]
        partner_rows = lambda rows: gather_rows(rows, axis_name)[partners]
        predictions, targets = (
            (*views, *map(partner_rows, views)) for views in (out.predictions, out.targets)
        )
        return losses.guided_stop_gradient(*predictions, *targets, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class ByolGsg(SimSiamGsg):
    """BYOL with guided stop-gradient and the heads of SimSiam (arXiv:2503.09058)."""

    target: Target = MomentumEncoder(momentum=0.99, ramp=False)
    """Targets of the predictions."""
