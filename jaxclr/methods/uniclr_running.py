"""UniCLR's methods with mean and covariance of all steps so far, where SimTrace and SimWhitening take the batch's."""

import dataclasses
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt

from jaxclr.affinity import AxisName, batch_size, moments, row_ids, unit_rows, whiten
from jaxclr.losses import compose
from jaxclr.losses.uniclr import SymmetryScale
from jaxclr.methods.base import Outputs, Predictive, Sizes, Tree

Array = jax.Array


class Moments(NamedTuple):
    """Mean [1, D] and covariance [D, D] of unit embeddings, without gradient."""

    mean: Array
    covariance: Array


@dataclasses.dataclass(frozen=True)
class SimTraceRunning(Predictive):
    r"""SimTrace whitened by mean and covariance over all steps so far (SimTrace2 of UniCLR's code, arXiv:2211.14516).

    .. math:: S_t = \frac{m t\, S_{t-1} + S(q_1, k_2)}{m t + 1}, \qquad t = 0, 1, \dots

    for mean and covariance alike, S(q1, k2) being those of the batch and m the `memory`. A step takes its batch in before
    the loss of both directions sees them.
    """

    memory: ClassVar[float] = 1.0  # nothing is forgotten: the mean of all steps

    eps: Annotated[float, Gt(0)] = 0.01
    """Ridge added to the covariance."""

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        width = sizes.embedding
        return Moments(jnp.zeros((1, width)), jnp.zeros((width, width)))

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        pair = jax.lax.stop_gradient((out.predictions[0], out.targets[1]))
        dtype = state.mean.dtype
        batch = moments(*(unit_rows(rows.astype(dtype)) for rows in pair), axis_name=axis_name)
        seen = self.memory * out.step.astype(dtype)
        return jax.tree.map(lambda old, new: (seen * old + new) / (seen + 1), state, Moments(*batch))

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        # The same expressions again when the step asks for the next state: they are computed once.
        known = self.next_state(out, state, axis_name)

        def whitened(q: Array, k: Array, *, axis_name: AxisName) -> compose.Affinity:
            rows, columns = whiten(
                unit_rows(q), unit_rows(k), mean=known.mean, covariance=known.covariance, eps=self.eps
            )
            images = row_ids(q, axis_name)
            return compose.Affinity(rows, columns, (images, images))

        (q1, q2), (k1, k2) = out.predictions, out.targets
        return sum(self._one_way(q, k, whitened, axis_name) for q, k in ((q1, k2), (q2, k1)))

    def _one_way(
        self, q: Array, k: Array, whitened: compose.Transform, axis_name: AxisName
    ) -> Array:
        return compose.affinity_loss(
            q, k, transform=whitened, readout=compose.trace, axis_name=axis_name
        )


@dataclasses.dataclass(frozen=True)
class SimWhiteningRunning(SimTraceRunning):
    """SimWhitening by mean and covariance of all steps so far (SimWhitening2 of UniCLR's code, arXiv:2211.14516).

    As in SimTraceRunning, but with a memory of 0.1: the batch of step t weighs 1 / (1 + t / 10), so that old ones fade.
    """

    memory: ClassVar[float] = 0.1

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the affinities."""

    symmetry_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the asymmetry; 0 leaves it out."""

    symmetry_scale: SymmetryScale = "frobenius"
    """frobenius: the official norm, which grows with the batch; per_sample: divided by the batch."""

    logit_divisor: Annotated[float, Gt(0)] | None = None
    """Divides the affinities too; None: the global batch size, as the official code on one device."""

    def _one_way(
        self, q: Array, k: Array, whitened: compose.Transform, axis_name: AxisName
    ) -> Array:
        count = batch_size(q, axis_name)
        divisor = count if self.logit_divisor is None else self.logit_divisor
        per_sample = self.symmetry_scale == "per_sample"
        return compose.affinity_loss(
            q,
            k,
            transform=whitened,
            regularizer=compose.asymmetry,
            regularizer_weight=self.symmetry_weight / (count if per_sample else 1),
            temperature=self.temperature * divisor,
            axis_name=axis_name,
        )
