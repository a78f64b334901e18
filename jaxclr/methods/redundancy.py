"""Redundancy reduction: methods based on second moments."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Interval

from jaxclr import losses
from jaxclr.affinity import AxisName, batch_size
from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods.base import Method, MomentumEncoder, Outputs, Sizes, Target, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class WMse(Method):
    """Distance of views after whitening in random sub-batches (W-MSE, arXiv:2007.06346).

    The official projector ends with a bias, which whitening removes.
    """

    more_views: ClassVar[bool] = True

    whitening_size: Annotated[int, Ge(2)] = 256
    """Images of a sub-batch, a divisor of the batch; the paper uses twice the embedding width."""

    whitening_iterations: Annotated[int, Ge(1)] = 4
    """Random partitions of the batch into sub-batches in each step."""

    shrinkage: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the identity in each covariance; 0 needs more images than dimensions."""

    projector: Mlp = Mlp(layers=2, hidden=1024, out=128)
    """Head from representations to embeddings."""

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        if sizes.batch % self.whitening_size:
            raise UserError(
                f"method.whitening_size must divide the batch of {sizes.batch}, "
                f"got {self.whitening_size}."
            )
        if self.shrinkage == 0 and self.whitening_size <= sizes.embedding:
            raise UserError(
                f"method.whitening_size must be more than the {sizes.embedding} dimensions of the "
                f"embeddings, got {self.whitening_size}: the covariance of so few rows has no "
                "inverse; set larger sub-batches, a narrower method.projector.out, or "
                "method.shrinkage above 0."
            )
        return super().init_state(key, sizes)

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        rows = jnp.arange(batch_size(out.indices, axis_name), dtype=jnp.int32)
        keys = jax.random.split(out.key, self.whitening_iterations)
        return losses.w_mse(
            out.embeddings,
            jax.vmap(lambda key: jax.random.permutation(key, rows))(keys),
            whitening_size=self.whitening_size,
            eps=self.shrinkage,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class VicReg(Method):
    """Invariance of two views, variance hinges, covariance penalty (VICReg, arXiv:2105.04906)."""

    invariance: Annotated[float, Ge(0)] = 25.0
    """Weight of the squared distance of views."""

    variance: Annotated[float, Ge(0)] = 25.0
    """Weight of the hinges on the standard deviation of each dimension."""

    covariance: Annotated[float, Ge(0)] = 1.0
    """Weight of the squared covariances."""

    projector: Mlp = Mlp(layers=3, hidden=8192, out=8192)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.vicreg(
            *out.embeddings,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class VibcReg(VicReg):
    """VICReg with a penalty on correlations instead of covariances (VIbCReg, arXiv:2109.00783).

    The projector ends with a BatchNorm in place of iterative whitening.
    """

    covariance: Annotated[float, Ge(0)] = 200.0
    """Weight of the squared correlations."""

    projector: Mlp = Mlp(layers=3, hidden=4096, out=4096, last_norm=True, last_affine="both")
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.vibcreg(
            *out.embeddings,
            invariance=self.invariance,
            variance=self.variance,
            covariance=self.covariance,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class BarlowTwins(Method):
    """Cross-correlation of views towards the identity (Barlow Twins, arXiv:2103.03230)."""

    off_diagonal: Annotated[float, Ge(0)] = 0.0051
    """Weight of correlations of different dimensions."""

    projector: Mlp = Mlp(layers=3, hidden=8192, out=8192)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.barlow_twins(
            *out.embeddings, off_diagonal=self.off_diagonal, axis_name=axis_name
        )


@dataclasses.dataclass(frozen=True)
class UniGrad(Method):
    """Cosine with momentum embeddings and energy of their correlation (UniGrad, arXiv:2112.05141).

    The state is the running correlation of momentum embeddings; it is updated before the loss.
    """

    correlation_weight: Annotated[float, Ge(0)] = 100.0
    """Weight of the energy."""

    correlation_momentum: Annotated[float, Interval(ge=0, le=1)] = 0.99
    """Weight of the previous running correlation in a step; 0 in the first step."""

    projector: Mlp = Mlp(layers=3, hidden=2048, out=2048, bias=True)
    """Head from representations to embeddings."""

    target: Target = MomentumEncoder(momentum=0.996)
    """Targets of the embeddings."""

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        return jnp.zeros((sizes.embedding, sizes.embedding))

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        batch = losses.uni_grad_correlation(*out.targets, axis_name=axis_name)
        kept = jnp.where(out.step == 0, 0.0, self.correlation_momentum)
        return kept * state + (1 - kept) * batch

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        (z1, z2), (k1, k2) = out.embeddings, out.targets
        return losses.uni_grad(
            z1,
            z2,
            k1,
            k2,
            # The step computes the same expression for the next state; XLA merges them.
            self.next_state(out, state, axis_name),
            weight=self.correlation_weight,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class TiCo(Method):
    """Cosine with momentum embeddings, energy of a running covariance (TiCo, arXiv:2206.10698).

    The state is the running covariance of the queries, the embeddings of the first view.
    """

    online_views: ClassVar[slice] = slice(0, 1)
    target_views: ClassVar[slice] = slice(1, 2)

    covariance_weight: Annotated[float, Ge(0)] = 8.0
    """Weight of the energy."""

    covariance_momentum: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Weight of the previous running covariance in a step."""

    projector: Mlp = Mlp(layers=2, hidden=4096, out=256, bias=True)
    """Head from representations to embeddings."""

    target: MomentumEncoder = MomentumEncoder(momentum=0.99)
    """Targets of the embeddings."""

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        return jnp.zeros((sizes.embedding, sizes.embedding))

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        (query,) = out.embeddings
        return losses.tico_covariance(
            query, state, momentum=self.covariance_momentum, axis_name=axis_name
        )

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        (query,), (key,) = out.embeddings, out.targets
        return losses.tico(
            query,
            key,
            state,
            weight=self.covariance_weight,
            momentum=self.covariance_momentum,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class Mmcr(Method):
    """Nuclear norm of the images' mean embeddings (MMCR, arXiv:2303.03307).

    With a momentum encoder, the mean is over its embeddings of all views too.
    """

    more_views: ClassVar[bool] = True

    projector: Mlp = Mlp(layers=3, hidden=8192, out=512)
    """Head from representations to embeddings."""

    target: Target = MomentumEncoder(momentum=0.99, ramp=False, update="after_update")
    """Embeddings that are averaged with those of the encoder."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.mmcr((*out.embeddings, *out.targets), axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class FroSsl(Method):
    """Frobenius norms of correlations, distance from the mean view (FroSSL, arXiv:2310.02903)."""

    more_views: ClassVar[bool] = True

    invariance: Annotated[float, Ge(0)] = 1.0
    """Weight of the squared distances from the mean view."""

    projector: Mlp = Mlp(layers=3, hidden=2048, out=1024, bias=True)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.frossl(out.embeddings, invariance=self.invariance, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class LeJepa(Method):
    """Distance from the mean view and a test of normality of projections (arXiv:2511.08544).

    All views are averaged; the paper averages the global ones.
    """

    more_views: ClassVar[bool] = True

    weight: Annotated[float, Interval(ge=0, le=1)] = 0.05
    """Weight of the test; the distance has the rest."""

    slices: Annotated[int, Ge(1)] = 1024
    """Random directions of a step."""

    knots: Annotated[int, Ge(2)] = 17
    """Points of the characteristic function."""

    t_max: Annotated[float, Gt(0)] = 3.0
    """Last of the points; the first is 0."""

    projector: Mlp = Mlp(layers=3, hidden=2048, out=128, bias=True)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        width = out.embeddings[0].shape[1]
        return losses.lejepa(
            out.embeddings,
            jax.random.normal(out.key, (self.slices, width)),
            weight=self.weight,
            t_max=self.t_max,
            knots=self.knots,
            axis_name=axis_name,
        )
