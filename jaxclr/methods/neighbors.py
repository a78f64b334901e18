"""Methods whose positives are nearest neighbors in a queue of earlier embeddings."""

import dataclasses
import functools
from typing import Annotated

import jax
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Outputs, Predictive, Sizes, StopGradient, Target
from jaxclr.methods.memory_queue import Queue, enqueue, init_queue
from jaxclr.methods.self_distillation import Byol

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class NnClr(Predictive):
    """InfoNCE of a view's nearest neighbor with the other's prediction (NNCLR, arXiv:2104.14548).

    The first view's embeddings join the queue after they were compared.
    """

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities."""

    queue_size: Annotated[int, Ge(1)] = 98_304
    """Embeddings of earlier batches; a multiple of the batch."""

    projector: Mlp = Mlp(layers=3, hidden=2048, out=256, last_norm=True, last_affine="both")
    """Head from representations to embeddings."""

    predictor: Mlp | None = Mlp(layers=2, hidden=4096, out=256, bias=True)
    """Head from embeddings to predictions; None: the embeddings are the predictions."""

    target: Target = StopGradient()
    """Embeddings whose neighbors are predicted."""

    def init_state(self, key: Array, sizes: Sizes) -> Queue:
        return init_queue(key, self.queue_size, sizes)

    def next_state(self, out: Outputs, state: Queue, axis_name: AxisName) -> Queue:
        return enqueue(state, out.targets[0], axis_name)

    def objective(self, out: Outputs, state: Queue, axis_name: AxisName) -> Array:
        loss = functools.partial(
            losses.nnclr, queue=state.rows, temperature=self.temperature, axis_name=axis_name
        )
        (z1, z2), (p1, p2) = out.targets, out.predictions
        return (loss(z1, p2) + loss(z2, p1)) / 2


@dataclasses.dataclass(frozen=True)
class NnByol(Byol):
    """BYOL that predicts the nearest neighbors of its targets (NNBYOL, arXiv:2104.14548).

    The paper names it without settings: these are BYOL's, with the queue of NNCLR. The first view's
    targets join the queue after they were compared, as in solo-learn.
    """

    queue_size: Annotated[int, Ge(1)] = 98_304
    """Targets of earlier batches; a multiple of the batch."""

    def init_state(self, key: Array, sizes: Sizes) -> Queue:
        return init_queue(key, self.queue_size, sizes)

    def next_state(self, out: Outputs, state: Queue, axis_name: AxisName) -> Queue:
        return enqueue(state, out.targets[0], axis_name)

    def objective(self, out: Outputs, state: Queue, axis_name: AxisName) -> Array:
        neighbors = (losses.nearest_neighbors(target, state.rows) for target in out.targets)
        return losses.byol(*out.predictions, *neighbors, axis_name=axis_name)
