"""Optimizers as chains of Optax transformations, and their schedules."""

import dataclasses
import operator
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Interval

from jaxclr.errors import UserError
from jaxclr.fields import check_fields
from jaxclr.methods import MomentumEncoder
from jaxclr.steps.freezing import matches, name_of


@dataclasses.dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""

    learning_rate: Annotated[float, Gt(0)] = 0.06
    """Peak learning rate for a batch of 256; multiplied by batch_size / 256."""

    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Share of the running gradient that a step keeps."""

    nesterov: bool = False
    """Look ahead by one step of momentum."""

    weight_decay: Annotated[float, Ge(0)] = 5e-4
    """Added to the gradient times the weights; biases and norms are left out."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer")

    def direction(self) -> optax.GradientTransformation:
        """The update before it is multiplied by the negative learning rate."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=matrices),
            optax.trace(self.momentum, nesterov=self.nesterov),
        )


@dataclasses.dataclass(frozen=True)
class Lars:
    """Layer-wise adaptive rates (You et al., arXiv:1708.03888) as in MoCo v3, BYOL and UniCLR.

    The learning rate is applied after momentum. Weight decay and trust ratio leave out biases and
    norms, which may have a learning rate of their own (Barlow Twins).
    """

    learning_rate: Annotated[float, Gt(0)] = 0.6
    """Peak learning rate for a batch of 256; multiplied by batch_size / 256."""

    momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Share of the running gradient that a step keeps."""

    weight_decay: Annotated[float, Ge(0)] = 1e-6
    """Added to the gradient times the weights; biases and norms are left out."""

    trust: Annotated[float, Gt(0)] = 0.001
    """Trust coefficient: a layer's step is this share of its weights' norm."""

    bias_and_norm_rate: Annotated[float, Gt(0)] | None = None
    """Peak learning rate of biases and norms for a batch of 256; None for that of the weights."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer")

    def direction(self) -> optax.GradientTransformation:
        """The update before it is multiplied by the negative learning rate."""
        trusted = optax.scale_by_trust_ratio(trust_coefficient=self.trust)
        chain = [
            optax.add_decayed_weights(self.weight_decay, mask=matrices),
            optax.masked(trusted, matrices),
            optax.trace(self.momentum),
        ]
        if self.bias_and_norm_rate is not None:
            others = lambda params: jax.tree.map(operator.not_, matrices(params))
            ratio = self.bias_and_norm_rate / self.learning_rate
            chain.append(optax.masked(optax.scale(ratio), others))
        return optax.chain(*chain)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, without biases and norms (MoCo v3 decays these too)."""

    learning_rate: Annotated[float, Gt(0)] = 1.5e-4
    """Peak learning rate for a batch of 256; multiplied by batch_size / 256."""

    beta1: Annotated[float, Interval(ge=0, lt=1)] = 0.9
    """Share of the running gradient that a step keeps."""

    beta2: Annotated[float, Interval(ge=0, lt=1)] = 0.999
    """Share of the running squared gradient that a step keeps."""

    weight_decay: Annotated[float, Ge(0)] = 0.1
    """Multiplied by the weights and the learning rate; biases and norms are left out."""

    def __post_init__(self) -> None:
        check_fields(self, "optimizer")

    def direction(self) -> optax.GradientTransformation:
        """The update before it is multiplied by the negative learning rate."""
        return optax.chain(
            optax.scale_by_adam(self.beta1, self.beta2),
            optax.add_decayed_weights(self.weight_decay, mask=matrices),
        )


Optimizer = Sgd | Lars | AdamW

# Peak learning rate for a batch of 256 of a user's optimizer without `learning_rate`.
DEFAULT_RATE = 1e-3

OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "lars": Lars, "sgd": Sgd}
"""The optimizers by name."""


def matrices(params: Any) -> Any:
    """A mask of the parameters to which decay and trust ratio apply: two dimensions or more."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    optimizer: Any,
    *,
    schedule: optax.Schedule,
    clip_norm: float | None,
    constant_rate: tuple[str, ...] = (),
    freeze: tuple[str, ...] = (),
    peak: float,
) -> optax.GradientTransformation:
    """Chains clipping by the global norm, the optimizer's direction and the learning rate.

    Args:
      optimizer: a spec, or a function `schedule -> optax.GradientTransformation`.
      schedule: learning rate by step.
      clip_norm: largest global norm of the gradient; None for no limit.
      constant_rate: parts or modules of the parameters that keep the peak rate throughout.
      freeze: patterns of parameters that are never updated; see `freezing.matches`. The optimizer
        stores nothing for them, and their gradient is not part of the norm.
      peak: the peak learning rate.
    """
    if freeze:
        trained = make_optimizer(
            optimizer,
            schedule=schedule,
            clip_norm=clip_norm,
            constant_rate=constant_rate,
            peak=peak,
        )
        group = lambda path, _: "frozen" if matches(name_of(path), freeze) else "trained"
        return optax.partition(
            {"trained": trained, "frozen": optax.set_to_zero()},
            lambda params: jax.tree_util.tree_map_with_path(group, params),
        )

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = {key.key for key in path}
        return "constant" if names & set(constant_rate) else "scheduled"

    rates = optax.partition(
        {
            "scheduled": optax.scale_by_learning_rate(schedule),
            "constant": optax.scale_by_learning_rate(peak),
        },
        lambda params: jax.tree_util.tree_map_with_path(label, params),
    )
    clip = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    if isinstance(optimizer, Optimizer):
        return optax.chain(*clip, optimizer.direction(), rates)
    own = optimizer(schedule)
    if not isinstance(own, optax.GradientTransformation):
        raise UserError(
            f"optimizer(schedule) returned {type(own).__name__}, not an "
            "optax.GradientTransformation."
        )
    if constant_rate:
        groups: dict[Hashable, optax.GradientTransformation] = {
            "scheduled": own,
            "constant": optimizer(lambda step: peak),
        }
        own = optax.partition(
            groups, lambda params: jax.tree_util.tree_map_with_path(label, params)
        )
    return optax.chain(*clip, own)


def check_optimizer(optimizer: Any) -> None:
    """Raises UserError unless this is a spec or a function of a schedule."""
    if isinstance(optimizer, Optimizer):
        return
    if isinstance(optimizer, (type, optax.GradientTransformation)) or not callable(optimizer):
        name = optimizer.__name__ if isinstance(optimizer, type) else type(optimizer).__name__
        raise UserError(
            "optimizer must be a spec (training.Sgd, Lars or AdamW) or a function of the "
            "learning-rate schedule that returns an optax.GradientTransformation, such as lambda "
            f"schedule: optax.adam(schedule); got {name}."
        )


def peak_rate(optimizer: Any) -> float:
    """The optimizer's `learning_rate`, the peak for a batch of 256; DEFAULT_RATE if it has none."""
    return getattr(optimizer, "learning_rate", DEFAULT_RATE)


def warmup_cosine(peak: float, *, warmup_steps: int, steps: int) -> optax.Schedule:
    """Linear warm-up from 0 to peak over warmup_steps, then cosine decay to 0 at steps."""
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else peak, peak, warmup_steps, max(steps, warmup_steps + 1)
    )


def extended(
    schedule_of: Callable[[int], optax.Schedule], steps: int, extensions: Sequence[tuple[int, int]]
) -> optax.Schedule:
    """The schedule of a run that was extended: from each extension on, that of the longer run.

    Args:
      schedule_of: the schedule of a run of so many steps.
      steps: number of steps of the run.
      extensions: (step, number of steps before it) of each extension, by step.
    """
    schedule = schedule_of(steps)
    for at, before in reversed(extensions):
        schedule = _switched(at, schedule_of(before), schedule)
    return schedule


def _switched(at: int, before: optax.Schedule, after: optax.Schedule) -> optax.Schedule:
    return lambda step: jnp.where(jnp.less(step, at), before(step), after(step))


def momentum_ramp(
    start: float, *, ramp: bool, step: jax.Array, steps: int | jax.Array
) -> jax.Array:
    """Momentum of a momentum encoder at a step, with or without its ramp."""
    progress = step.astype(jax.dtypes.canonicalize_dtype(float)) / steps
    return MomentumEncoder(start, ramp=ramp).at(progress)
