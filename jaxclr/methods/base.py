"""What a method is: heads, a target and an objective over their outputs."""

import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple, Self

import flax.linen as nn
import jax

from jaxclr.affinity import AxisName
from jaxclr.encoders import Encoder, Mlp
from jaxclr.errors import UserError

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Shared:
    """Targets are the embeddings of the same encoder, with gradient."""


@dataclasses.dataclass(frozen=True)
class StopGradient:
    """Targets are the embeddings of the same encoder, held constant."""


@dataclasses.dataclass(frozen=True)
class MomentumEncoder:
    """Targets are the embeddings of an exponential moving average of encoder and projector, held constant.

    Its norms use the statistics of the batch and keep running ones of their own.
    """

    momentum: float = 0.99
    """Share of the average that a step keeps, at the start."""

    ramp: bool = True
    """Raise the momentum to 1 along a half cosine over the run, 1 - (1 - m)(1 + cos(pi t / T)) / 2."""

    update: Literal["before_keys", "after_update"] = "before_keys"
    """before_keys: average the parameters of before the step, then embed the targets (MoCo, UniCLR).
    after_update: embed the targets first, then average the updated parameters (BYOL)."""

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise UserError(f"momentum must be between 0 and 1, got {self.momentum}.")
        if self.update not in ("before_keys", "after_update"):
            raise UserError(
                f"update must be 'before_keys' or 'after_update', got {self.update!r}."
            )


Target = Shared | StopGradient | MomentumEncoder


class Outputs(NamedTuple):
    """What an objective sees: one [b, D] per view in each field.

    predictions are the embeddings themselves where a method has no predictor.
    """

    embeddings: tuple[Array, ...]
    predictions: tuple[Array, ...]
    targets: tuple[Array, ...]


class Branch(NamedTuple):
    """One view's way through the network: representation [b, F], embedding [b, D], prediction [b, D]."""

    representation: Array
    embedding: Array
    prediction: Array


class Network(nn.Module):
    """Encoder, projector and, if any, predictor, called as network(images, train)."""

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None = None

    def __call__(self, images: Array, train: bool) -> Branch:
        representation = self.encoder(images, train)
        embedding = self.projector(representation, train)
        prediction = embedding if self.predictor is None else self.predictor(embedding, train)
        return Branch(representation, embedding, prediction)

    def represent(self, images: Array) -> Array:
        """Representations [b, F] for evaluation: running statistics, no heads."""
        return self.encoder(images, False)


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to learn from views of images. Its fields are its hyper-parameters.

    To add one: a subclass with fields and `objective` in its family's file, and its name in METHODS.
    """

    views: ClassVar[int] = 2
    constant_rate: ClassVar[tuple[str, ...]] = ()  # parts whose learning rate does not decay

    projector: Mlp = Mlp(layers=2, hidden=4096, out=256, last_norm=True)
    """Head from representations to embeddings."""

    predictor: Mlp | None = Mlp(layers=2, hidden=4096, out=256)
    """Head from embeddings to predictions of the targets; None: predictions are the embeddings."""

    target: Target = MomentumEncoder()
    """What predictions are compared with."""

    def __post_init__(self) -> None:
        for name in ("temperature", "eps", "logit_divisor"):
            value = getattr(self, name, None)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UserError(f"method.{name} must be more than zero, got {value}.")
        if getattr(self, "symmetry_weight", 0) < 0:
            raise UserError(
                f"method.symmetry_weight must be zero or more, got {self.symmetry_weight}."
            )
        if self.predictor is not None and self.predictor.out != self.projector.out:
            raise UserError(
                f"method.predictor.out is {self.predictor.out} and method.projector.out {self.projector.out}: "
                "predictions and targets need one width; set both alike."
            )

    def objective(self, out: Outputs, axis_name: AxisName) -> Array:
        """This device's share of the loss."""
        raise TypeError(f"{type(self).__name__} must define objective(out, axis_name).")

    def network(self, encoder: Encoder, axis_name: AxisName) -> Network:
        """The module that is trained, its norms synchronised over axis_name."""
        head = lambda mlp: None if mlp is None else mlp.build(axis_name, encoder.dtype)
        return Network(encoder.build(axis_name), head(self.projector), head(self.predictor))

    def with_heads(self, *, hidden: int, out: int) -> Self:
        """The same method with heads of other widths, their number of layers and norms kept."""
        resize = lambda mlp: mlp and dataclasses.replace(mlp, hidden=hidden, out=out)
        return self.replace(projector=resize(self.projector), predictor=resize(self.predictor))

    def replace(self, **changes: Any) -> Self:
        """A copy with other hyper-parameters."""
        return dataclasses.replace(self, **changes)
