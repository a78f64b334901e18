"""Methods with trained prototypes."""

import dataclasses
import functools
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName, batch_size, unit_rows
from jaxclr.affinity.tiles import matmul
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Sizes, Tree
from jaxclr.methods.memory_queue import enqueue, init_queue

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SwAv(Method):
    """Predicts the balanced assignment of two crops from all other crops (SwAV, arXiv:2006.09882).

    Prototypes are normalized in the objective; the official code normalizes the parameters before
    each step.
    """

    more_views: ClassVar[bool] = True

    prototypes: Annotated[int, Ge(1)] = 3000
    """Number of prototypes."""

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the scores of the predictions."""

    epsilon: Annotated[float, Gt(0)] = 0.05
    """Entropic regularization of the assignments."""

    iterations: Annotated[int, Ge(1)] = 3
    """Iterations of Sinkhorn-Knopp."""

    freeze_prototypes: Annotated[int, Ge(0)] = 313
    """Number of first steps in which prototypes are not trained."""

    queue_size: Annotated[int, Ge(0)] = 0
    """Earlier embeddings of each of the two crops for the assignment; 0: none."""

    queue_from: Annotated[int, Ge(0)] = 15
    """First epoch that uses the queue, once it is full."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, bias=True)
    """Head from representations to embeddings."""

    @property
    def frozen_first(self) -> dict[str, int]:
        """The prototypes, for the first epochs."""
        return {"readout/prototypes": self.freeze_prototypes}

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        return {"prototypes": unit_rows(jax.random.normal(key, (self.prototypes, sizes.embedding)))}

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        if not self.queue_size:
            return ()
        return tuple(init_queue(one, self.queue_size, sizes) for one in jax.random.split(key))

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        pairs = zip(state, out.embeddings, strict=False)  # the first two crops, or none
        return tuple(enqueue(queue, rows, axis_name) for queue, rows in pairs)

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        prototypes = unit_rows(out.params["prototypes"])
        frozen = out.step < self.freeze_prototypes
        prototypes = jnp.where(frozen, jax.lax.stop_gradient(prototypes), prototypes)
        score = lambda rows: matmul(unit_rows(rows.astype(prototypes.dtype)), prototypes.T)
        loss = functools.partial(
            losses.swav,
            [score(rows) for rows in out.embeddings],
            temperature=self.temperature,
            epsilon=self.epsilon,
            iterations=self.iterations,
            axis_name=axis_name,
        )
        if not state:
            return loss()
        full = out.step * batch_size(out.indices, axis_name) >= self.queue_size
        return jax.lax.cond(
            full & (out.epoch >= self.queue_from),
            lambda: loss(earlier=[score(queue.rows) for queue in state]),
            loss,
        )
