"""Self-distillation: methods without negatives."""

import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Interval

from jaxclr import losses
from jaxclr.affinity import (
    AxisName,
    batch_size,
    gather_rows,
    row_ids,
    second_moment,
    unit_rows,
)
from jaxclr.affinity.tiles import matmul
from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods.base import (
    Method,
    MomentumEncoder,
    Network,
    Outputs,
    Predictive,
    Sizes,
    StopGradient,
    Target,
    Tree,
)
from jaxclr.methods.patches import PatchNetwork, check_gives_patches

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
    """BYOL, predictor from the correlation of embeddings itself (DirectCopy, arXiv:2110.04947).

    No official command sets eps and momentum; these are not confirmed by code.
    """

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


@dataclasses.dataclass(frozen=True)
class Dino(Method):
    """Predicts a momentum encoder's centered and sharpened prototypes (DINO, arXiv:2104.14294).

    The first two views are those of the teacher; every view predicts the others of them. Prototypes
    are the last layer of the head, with rows of unit length, and their average is the teacher's.
    Heads have ReLUs, as all here, in place of GELUs. The teacher's temperatures are those of the
    paper; by default the official code stays at 0.04.
    """

    more_views: ClassVar[bool] = True
    target_views: ClassVar[slice] = slice(0, 2)

    prototypes: Annotated[int, Ge(1)] = 65_536
    """Number of prototypes."""

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the scores of the student."""

    teacher_temperature: Annotated[float, Gt(0)] = 0.07
    """Divides the scores of the teacher after warm-up."""

    first_teacher_temperature: Annotated[float, Gt(0)] = 0.04
    """Divides the scores of the teacher at first."""

    warmup_epochs: Annotated[int, Ge(0)] = 30
    """Epochs in which the temperature of the teacher rises linearly."""

    center_momentum: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Share of the center that a step keeps."""

    freeze_prototypes: Annotated[int, Ge(0)] = 1251
    """Number of first steps in which prototypes are not trained: an epoch of ImageNet at 1,024."""

    koleo_weight: Annotated[float, Ge(0)] = 0.0
    """Weight of KoLeo on the student's representations of the teacher's views; DINOv2's is 0.1."""

    projector: Mlp = Mlp(layers=3, hidden=2048, out=256, norm=False, bias=True)
    """Head from representations to embeddings."""

    target: MomentumEncoder = MomentumEncoder(momentum=0.996, update="after_update")
    """The teacher."""

    @property
    def one_row(self) -> bool:
        return not self.koleo_weight

    @property
    def frozen_first(self) -> dict[str, int]:
        """The prototypes, for the first epochs."""
        return {"readout/prototypes": self.freeze_prototypes}

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        return {"prototypes": unit_rows(jax.random.normal(key, (self.prototypes, sizes.embedding)))}

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        return {
            "center": jnp.zeros(self.prototypes),
            "prototypes": jnp.zeros((self.prototypes, sizes.embedding)),
        }

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        loss = losses.dino(
            [_scores(rows, out.params["prototypes"]) for rows in out.embeddings],
            self.teacher_scores(out, state),
            state["center"],
            temperature=self.temperature,
            teacher_temperature=self.teacher_temperature_at(out.epoch),
            axis_name=axis_name,
        )
        if self.koleo_weight:
            for rows in out.representations[self.target_views]:
                loss += self.koleo_weight * losses.koleo(rows, axis_name=axis_name)
        return loss

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        center = losses.dino_center(self.teacher_scores(out, state), axis_name=axis_name)
        kept = self.center_momentum
        return {
            "center": kept * state["center"] + (1 - kept) * center,
            "prototypes": self.teacher_prototypes(out, state),
        }

    def teacher_temperature_at(self, epoch: Array) -> Array | float:
        """The temperature of the teacher after so many epochs."""
        first, last = self.first_teacher_temperature, self.teacher_temperature
        risen = jnp.clip(epoch / max(self.warmup_epochs - 1, 1), 0, 1)
        return first + (last - first) * risen if self.warmup_epochs else last

    def teacher_scores(self, out: Outputs, state: Tree) -> list[Array]:
        """Scores of the teacher, [b, K] for each of its views."""
        prototypes = self.teacher_prototypes(out, state)
        return [_scores(rows, prototypes) for rows in out.targets]

    def teacher_prototypes(self, out: Outputs, state: Tree) -> Array:
        """The average of the prototypes, [K, D], the current ones included."""
        kept = jnp.where(out.step == 0, 0.0, self.target.at(out.progress))
        mixed = kept * state["prototypes"] + (1 - kept) * out.params["prototypes"]
        return jax.lax.stop_gradient(mixed)


@dataclasses.dataclass(frozen=True)
class Ibot(Dino):
    """DINO, and a masked student that predicts the teacher's patches (iBOT, arXiv:2111.07832).

    It needs an encoder with patch tokens, such as a ViT. Patches of the first two views are masked
    in blocks; the student's class token sees the masked image, too. Further views are not masked.

    Class token and patches share the head and the temperatures, as in the commands of the paper's
    models; the code can set them apart. There the vectors of prototypes may have any length with a
    ViT-S. Here they have length 1, and heads have ReLUs, as with DINO.
    """

    prototypes: Annotated[int, Ge(1)] = 8192
    """Number of prototypes."""

    patch_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the patch loss."""

    mask_probability: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Share of the images, in each view, that are masked."""

    mask_ratio: tuple[
        Annotated[float, Interval(ge=0, le=1)], Annotated[float, Interval(ge=0, le=1)]
    ] = (0.1, 0.5)
    """Least and largest share of the patches that are masked in such an image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mask_ratio[0] > self.mask_ratio[1]:
            raise UserError(
                f"method.mask_ratio must be the least share and the largest, got {self.mask_ratio}."
            )

    def network(self, encoder: Any, axis_name: AxisName) -> Network:
        plain = super().network(encoder, axis_name)
        check_gives_patches(type(self).__name__, encoder, plain)
        return PatchNetwork(
            plain.encoder,
            plain.projector,
            views=self.target_views.stop,
            probability=self.mask_probability,
            ratio=self.mask_ratio,
        )

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        return {**super().init_state(key, sizes), "patch_center": jnp.zeros(self.prototypes)}

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        patch_losses = [
            losses.ibot_patch(
                _scores(patches, out.params["prototypes"]),
                teacher_scores,
                mask,
                state["patch_center"],
                temperature=self.temperature,
                teacher_temperature=self.teacher_temperature_at(out.epoch),
                axis_name=axis_name,
            )
            for patches, teacher_scores, mask in zip(
                out.patches, self.teacher_patch_scores(out, state), out.masks, strict=True
            )
        ]
        patch_loss = sum(patch_losses) / len(patch_losses)
        return super().objective(out, state, axis_name) + self.patch_weight * patch_loss

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        scores = [of.reshape(-1, of.shape[-1]) for of in self.teacher_patch_scores(out, state)]
        center = losses.dino_center(scores, axis_name=axis_name)
        kept = self.center_momentum
        return {
            **super().next_state(out, state, axis_name),
            "patch_center": kept * state["patch_center"] + (1 - kept) * center,
        }

    def teacher_patch_scores(self, out: Outputs, state: Tree) -> list[Array]:
        """Scores of the teacher for patches, [b, N, K] for each of its views."""
        prototypes = self.teacher_prototypes(out, state)
        return [_scores(patches, prototypes) for patches in out.target_patches]


def _scores(rows: Array, prototypes: Array) -> Array:
    """Cosines [..., K] of rows [..., D] and prototypes [K, D]."""
    flat = rows.reshape(-1, rows.shape[-1]).astype(prototypes.dtype)
    cosines = matmul(unit_rows(flat), unit_rows(prototypes).T)
    return cosines.reshape(*rows.shape[:-1], -1)
