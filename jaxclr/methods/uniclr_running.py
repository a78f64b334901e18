"""UniCLR's methods with running mean and covariance."""

import dataclasses
import functools
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
    r"""SimTrace with running moments (SimTrace2 of UniCLR's code, arXiv:2211.14516).

    .. math:: S_t = \frac{m t\, S_{t-1} + S(q_1, k_2)}{m t + 1}, \qquad t = 0, 1, \dots

    for the mean and the covariance, where S(q1, k2) is that of the batch and m is `memory`. They
    are updated before the loss of both directions is computed.
    """

    memory: ClassVar[float] = 1.0  # the mean of all steps

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
        return jax.tree.map(
            lambda old, new: (seen * old + new) / (seen + 1), state, Moments(*batch)
        )

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        # The step computes the same expressions for the next state; XLA merges them.
        known = self.next_state(out, state, axis_name)

        def whitened(q: Array, k: Array, *, axis_name: AxisName) -> compose.Affinity:
            rows, columns = whiten(
                unit_rows(q),
                unit_rows(k),
                mean=known.mean,
                covariance=known.covariance,
                eps=self.eps,
            )
            images = row_ids(q, axis_name)
            return compose.Affinity(rows, columns, (images, images))

        (q1, q2), (k1, k2) = out.predictions, out.targets
        loss = functools.partial(self._one_way, whitened=whitened, axis_name=axis_name)
        return loss(q1, k2) + loss(q2, k1)

    def _one_way(
        self, q: Array, k: Array, whitened: compose.Transform, axis_name: AxisName
    ) -> Array:
        return compose.affinity_loss(
            q, k, transform=whitened, readout=compose.trace, axis_name=axis_name
        )


@dataclasses.dataclass(frozen=True)
class SimWhiteningRunning(SimTraceRunning):
    """SimWhitening with running moments (SimWhitening2 of UniCLR's code, arXiv:2211.14516).

    As SimTraceRunning with a memory of 0.1: the batch of step t has a weight of 1 / (1 + t / 10).
    """

    memory: ClassVar[float] = 0.1

    temperature: Annotated[float, Gt(0)] = 1.0
    """Divides the affinities."""

    symmetry_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the asymmetry of the affinity matrix."""

    symmetry_scale: SymmetryScale = "frobenius"
    """frobenius: the official norm, which grows with the batch; per_sample: over the batch."""

    logit_divisor: Annotated[float, Gt(0)] | None = None
    """Divides the affinities too; None: the global batch size, as officially on one device."""

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
