"""Methods of pairs and triplets of rows."""

import dataclasses
from typing import Annotated

import jax
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Sizes, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Mio(Method):
    """Binary cross-entropy of positives against all negatives (MIO, arXiv:2111.12664)."""

    temperature_positive: Annotated[float, Gt(0)] = 0.5
    """Divides the affinities of positives."""

    temperature_negative: Annotated[float, Gt(0)] = 0.5
    """Divides the affinities of negatives."""

    mse_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of the squared distance of positives."""

    bound: bool = False
    """Omit the repulsion of positives and bound that of negatives: a guess at version 2."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, last_norm=True, last_affine="both")
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.mio(
            *out.embeddings,
            temperature_positive=self.temperature_positive,
            temperature_negative=self.temperature_negative,
            mse_weight=self.mse_weight,
            bound=self.bound,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class Trip(Method):
    """Hinge loss of all triplets plus cross-entropy of pairs (Trip, arXiv:2107.10419).

    The projector of the official code has leaky ReLUs; this one has ReLUs, as all heads here.
    """

    margin: Annotated[float, Ge(0)] = 1.0
    """Margin between the distances of positives and negatives."""

    pairwise_weight: Annotated[float, Ge(0)] = 8.0
    """Weight of the cross-entropy."""

    pairwise_temperature: Annotated[float, Gt(0)] = 0.5
    """Temperature of the cross-entropy."""

    projector: Mlp = Mlp(layers=3, hidden=2048, out=2048, last_norm=True, last_affine="both")
    """Head from representations to embeddings."""

    def projection(self, out: Outputs, state: Tree) -> Array | None:
        """The linear map of the embeddings, [D, D]; None for the identity."""
        del out, state
        return None

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        z1, z2 = out.embeddings
        return losses.triplet(
            z1,
            z2,
            self.projection(out, state),
            margin=self.margin,
            pairwise_weight=self.pairwise_weight,
            pairwise_temperature=self.pairwise_temperature,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class TripRoma(Trip):
    """Trip with a random linear map, redrawn every few epochs (Trip-ROMA, arXiv:2107.10419).

    The state is only the key of all maps, which keeps checkpoints small: each step draws the map of
    its epoch again.
    """

    renew_every: Annotated[int, Ge(1)] = 10
    """Epochs between maps; the paper uses 10 on CIFAR and 1 on ImageNet-100."""

    def init_state(self, key: Array, sizes: Sizes) -> Array:
        return jax.random.key_data(key)

    def projection(self, out: Outputs, state: Array) -> Array:
        width = out.embeddings[0].shape[1]
        key = jax.random.fold_in(jax.random.wrap_key_data(state), out.epoch // self.renew_every)
        return jax.random.normal(key, (width, width))
