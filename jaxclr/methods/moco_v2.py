"""MoCo v2 and methods with its queue."""

import dataclasses
from typing import Annotated, ClassVar

import jax
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, MomentumEncoder, Outputs, Sizes
from jaxclr.methods.memory_queue import Queue, enqueue, init_queue

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class MocoV2(Method):
    """InfoNCE with the other view's key and a queue of earlier keys (MoCo v2, arXiv:2003.04297)."""

    one_row: ClassVar[bool] = True
    online_views: ClassVar[slice] = slice(0, 1)
    target_views: ClassVar[slice] = slice(1, 2)

    temperature: Annotated[float, Gt(0)] = 0.2
    """Divides the affinities."""

    queue_size: Annotated[int, Ge(1)] = 65_536
    """Keys of earlier batches; a multiple of the batch."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, norm=False, bias=True)
    """Head from representations to embeddings."""

    target: MomentumEncoder = MomentumEncoder(momentum=0.999, ramp=False)
    """Encoder of the keys."""

    def init_state(self, key: Array, sizes: Sizes) -> Queue:
        return init_queue(key, self.queue_size, sizes)

    def next_state(self, out: Outputs, state: Queue, axis_name: AxisName) -> Queue:
        return enqueue(state, out.targets[0], axis_name)

    def objective(self, out: Outputs, state: Queue, axis_name: AxisName) -> Array:
        (q,), (k,) = out.embeddings, out.targets
        return losses.queue_info_nce(
            q, k, state.rows, temperature=self.temperature, axis_name=axis_name
        )


@dataclasses.dataclass(frozen=True)
class Co2(MocoV2):
    """MoCo v2 plus the consistency of query and key over the queue (CO2, arXiv:2010.02217)."""

    consistency_weight: Annotated[float, Ge(0)] = 0.3
    """Weight of the divergence between the softmaxes of query and key over the queue."""

    consistency_temperature: Annotated[float, Gt(0)] = 0.05
    """Temperature of these softmaxes."""

    def objective(self, out: Outputs, state: Queue, axis_name: AxisName) -> Array:
        (q,), (k,) = out.embeddings, out.targets
        consistency = losses.co2(
            q, k, state.rows, temperature=self.consistency_temperature, axis_name=axis_name
        )
        return super().objective(out, state, axis_name) + self.consistency_weight * consistency


@dataclasses.dataclass(frozen=True)
class Ft(MocoV2):
    """MoCo v2 with extrapolated positives and interpolated negatives (FT, arXiv:2108.02982)."""

    extrapolation: Annotated[float, Gt(0)] = 2.0
    """Both parameters of the Beta distribution of the extrapolation of positives."""

    interpolation: Annotated[float, Gt(0)] = 1.6
    """Both parameters of the Beta distribution of the mixture of negatives."""

    def objective(self, out: Outputs, state: Queue, axis_name: AxisName) -> Array:
        (q,), (k,) = out.embeddings, out.targets
        positive_key, negative_key, order_key = jax.random.split(out.key, 3)
        extrapolation = 1 + jax.random.beta(positive_key, self.extrapolation, self.extrapolation)
        mixture = jax.random.beta(negative_key, self.interpolation, self.interpolation)
        order = jax.random.permutation(order_key, self.queue_size)
        return losses.queue_cross_entropy(
            *losses.extrapolate_positives(q, k, extrapolation),
            losses.interpolate_negatives(state.rows, mixture, order),
            temperature=self.temperature,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class ReSsl(MocoV2):
    """Query and key relate alike to a queue of earlier keys (ReSSL, arXiv:2107.09282).

    The second view, of the key, is to be weakly augmented: crop and flip.
    """

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities of queries."""

    teacher_temperature: Annotated[float, Gt(0)] = 0.04
    """Divides the affinities of keys."""

    queue_size: Annotated[int, Ge(1)] = 131_072
    """Keys of earlier batches; a multiple of the batch."""

    projector: Mlp = Mlp(layers=2, hidden=4096, out=512, norm=False, bias=True)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Queue, axis_name: AxisName) -> Array:
        (q,), (k,) = out.embeddings, out.targets
        return losses.ressl(
            q,
            k,
            state.rows,
            temperature=self.temperature,
            teacher_temperature=self.teacher_temperature,
            axis_name=axis_name,
        )
