"""The base classes of methods: heads, a target, and an objective over their outputs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Interval

from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp, Precision, build_encoder
from jaxclr.encoders.custom import PerView, precision_of, towers_of
from jaxclr.errors import UserError
from jaxclr.fields import check_fields

Array = jax.Array
Tree = Any


@dataclasses.dataclass(frozen=True)
class Shared:
    """Targets are the embeddings of the same encoder, with gradient."""


@dataclasses.dataclass(frozen=True)
class StopGradient:
    """Targets are the embeddings of the same encoder, held constant."""


@dataclasses.dataclass(frozen=True)
class MomentumEncoder:
    """Targets are the embeddings of an exponential moving average of encoder and projector.

    They have no gradient. BatchNorms of the average use batch statistics, and keep their own
    running statistics.

    Args:
      momentum: Weight of the previous average in a step, at the start of the run.
      ramp: Increase the momentum m to 1 over the run: 1 - (1 - m)(1 + cos(pi t / T)) / 2.
      update: before_keys: update the average, then embed the targets, then step (MoCo, UniCLR).
        after_update: embed the targets, then step, then update the average (BYOL).
    """

    momentum: Annotated[float, Interval(ge=0, le=1)] = 0.99
    ramp: bool = True
    update: Literal["before_keys", "after_update"] = "before_keys"

    def __post_init__(self) -> None:
        check_fields(self, "method.target")

    def at(self, progress: Array) -> Array:
        """The momentum at a completed share of the steps of the run."""
        rest = (1 - self.momentum) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return 1 - rest if self.ramp else jnp.asarray(self.momentum)


Target = Shared | StopGradient | MomentumEncoder
"""Where the targets of a predictive method come from."""


class Outputs(NamedTuple):
    """The inputs of an objective: this device's b rows of the global batch.

    Attributes:
      embeddings: raw projector outputs, [b, D] for each of `Method.online_views`.
      predictions: predictor outputs, likewise; without a predictor the embeddings.
      targets: embeddings of the momentum encoder, [b, D] for each of `Method.target_views`; without
        a momentum encoder `embeddings`, without gradient for `StopGradient`.
      representations: encoder outputs, [b, F] for each of `Method.online_views`.
      labels: int32 [b], -1 for unlabeled images.
      indices: indices of the images in the training split, int32 [b].
      params: the trained parameters of the method, as from `Method.init_params`.
      key: typed key [] for draws over the global batch, new in each step; equal on all devices.
      step: number of completed steps, int32 [].
      epoch: number of completed epochs, int32 [].
      progress: completed share of the steps of the run, float [].
      patches: projector outputs of N patch tokens, [b, N, D] for each view that has them; only
        methods such as `Ibot`, whose network is a `PatchNetwork`, have these and the following.
      target_patches: likewise, of the momentum encoder, which sees all patches.
      masks: bool [b, N] for each view of `patches`: the patches that the encoder does not see.
    """

    embeddings: tuple[Array, ...]
    predictions: tuple[Array, ...]
    targets: tuple[Array, ...]
    representations: tuple[Array, ...]
    labels: Array
    indices: Array
    params: Tree
    key: Array
    step: Array
    epoch: Array
    progress: Array
    patches: tuple[Array, ...] = ()
    target_patches: tuple[Array, ...] = ()
    masks: tuple[Array, ...] = ()


class Sizes(NamedTuple):
    """Sizes for the shapes of a method's parameters and state.

    Attributes:
      images: N, images of the training split.
      classes: number of classes; 0 without labels.
      batch: B, rows of the global batch.
      representation: F, width of a representation.
      embedding: D, width of an embedding.
    """

    images: int
    classes: int
    batch: int
    representation: int
    embedding: int


class Branch(NamedTuple):
    """Outputs for one view: representation [b, F], embedding [b, D], prediction [b, D].

    A `PatchNetwork` also gives embeddings of patches [b, N, D], and the mask [b, N] if it drew one.
    """

    representation: Array
    embedding: Array
    prediction: Array
    patches: Array | None = None
    mask: Array | None = None


class Network(nn.Module):
    """Encoder, projector and optional predictor, called as network(x, train, view).

    Each is one module for all views, or a `PerView` with one module for each view.
    """

    encoder: nn.Module
    projector: nn.Module
    predictor: nn.Module | None = None

    def __call__(self, x: Tree, train: bool, view: int = 0) -> Branch:
        representation = self.represent(x, train, view)
        embedding = _call(self.projector, representation, train, view)
        prediction = (
            embedding if self.predictor is None else _call(self.predictor, embedding, train, view)
        )
        return Branch(representation, embedding, prediction)

    def represent(self, x: Tree, train: bool = False, view: int = 0) -> Array:
        """Representations [b, F] of a view; with train=False norms use running statistics."""
        return _call(self.encoder, x, train, view)

    def init_views(self, views: tuple[Tree, ...]) -> tuple[Branch, ...]:
        """All branches, for `init`: it also initializes modules of single views."""
        count = len(self.encoder.modules) if isinstance(self.encoder, PerView) else 1
        return tuple(self(x, False, view) for view, x in enumerate(views[:count]))


def _call(module: nn.Module, x: Tree, train: bool, view: int) -> Array:
    return module(x, train, view) if isinstance(module, PerView) else module(x, train)


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of learning from views of images; its fields are its hyperparameters.

    A new method is a subclass with fields and an `objective`. By default a method has two views and
    no labels, predictor, parameters or state, and its targets are the embeddings. A method with a
    predictor or a target network is a subclass of `Predictive`.

    Fields are checked against their annotations, bounds included: see `jaxclr.fields`.
    """

    views: ClassVar[int] = 2  # of each image
    more_views: ClassVar[bool] = False  # whether more views are allowed
    needs_labels: ClassVar[bool] = False
    online_views: ClassVar[slice] = slice(None)  # for encoder and heads, with gradient
    target_views: ClassVar[slice] = slice(None)  # for the momentum encoder
    refresh_from: ClassVar[int | None] = None  # first epoch that starts with `refresh`; None: never
    constant_rate: ClassVar[tuple[str, ...]] = ()  # parts whose learning rate stays at its peak
    one_row: ClassVar[bool] = False  # whether a batch of one can be learned from
    # Number of first steps in which parameters do not change, by their path.
    frozen_first: ClassVar[Mapping[str, int]] = {}

    # The step reads these of every method; `Predictive` makes them fields.
    predictor: ClassVar[Mlp | None] = None
    target: ClassVar[Target] = Shared()

    projector: Mlp = Mlp(layers=2, hidden=4096, out=256, last_norm=True)
    """Head from representations to embeddings."""

    def __post_init__(self) -> None:
        check_fields(self, "method")
        if self.predictor is not None and self.predictor.out != self.projector.out:
            raise UserError(
                f"method.predictor.out is {self.predictor.out} and method.projector.out is "
                f"{self.projector.out}: predictions and targets need one width; set both alike."
            )

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        """This device's share; the mean over devices is the loss of the global batch.

        Args:
          out: outputs of the network for this device's rows.
          state: the state of the method.
          axis_name: mapped axis over which the batch is spread; None if `out` holds all rows.
        """
        raise TypeError(f"{type(self).__name__} must define objective(out, state, axis_name).")

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        """Initial trained parameters of the method, passed to the objective as `out.params`.

        In the parameters of a run they have the name "readout".
        """
        del key, sizes
        return {}

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        """The initial state: arrays without gradient, equal on all devices."""
        del key, sizes
        return {}

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        """The state after a step, computed without gradient from the inputs of the objective.

        It must be equal on all devices: gather or reduce over axis_name all that depends on rows.
        """
        del out, axis_name
        return state

    def refresh(self, state: Tree, embeddings: Array, key: Array) -> Tree:
        """The state at the start of an epoch, from embeddings of all training images; it is jitted.

        Args:
          state: the state at the end of the epoch before.
          embeddings: float32 [N, D], in the order of the training split: raw projector outputs of
            the momentum encoder if there is one, otherwise of the encoder. Images are not
            augmented, and norms use running statistics.
          key: typed key [], new in every epoch.
        """
        raise TypeError(f"{type(self).__name__} must define refresh(state, embeddings, key).")

    def check_views(self, count: int) -> None:
        """Raises UserError unless the method takes this number of views."""
        if count < self.views or (count > self.views and not self.more_views):
            least = "at least " if self.more_views else ""
            raise UserError(
                f"{type(self).__name__} needs {least}{self.views} views, the augmentation makes "
                f"{count}; set --views {self.views}, or with_views(augmentation, {self.views}) in "
                "an experiment."
            )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises UserError unless the method can learn from labels of these classes.

        It is called if `needs_labels`.
        """
        del classes

    def network(self, encoder: Any, axis_name: AxisName) -> Network:
        """The trained network, its norms synchronized over axis_name.

        With a tuple of encoders, each encoder has its own heads.
        """
        towers = towers_of(encoder)
        each = lambda build: (
            build(towers[0]) if encoder is towers[0] else PerView(tuple(map(build, towers)))
        )
        head = lambda spec: (
            None if spec is None else each(lambda tower: spec.build(axis_name, precision_of(tower)))
        )
        return Network(
            each(lambda tower: build_encoder(tower, axis_name)),
            each(lambda tower: self.build_projector(axis_name, precision_of(tower))),
            head(self.predictor),
        )

    def build_projector(self, axis_name: AxisName, dtype: Precision) -> nn.Module:
        """The module from representations to embeddings, called as module(x, train)."""
        return self.projector.build(axis_name, dtype)

    def with_heads(self, *, hidden: int, out: int) -> Self:
        """A copy with heads of these widths."""
        heads = {"projector": self.projector, "predictor": self.predictor}
        resize = lambda head: dataclasses.replace(head, hidden=hidden, out=out)
        resized = {name: resize(head) for name, head in heads.items() if head is not None}
        return self.replace(**resized)

    def replace(self, **changes: Any) -> Self:
        """A copy with other hyperparameters."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Predictive(Method):
    """A method that predicts the embeddings of a target, by default those of a momentum encoder.

    Its objective compares `out.predictions` with `out.targets`.
    """

    predictor: Mlp | None = Mlp(layers=2, hidden=4096, out=256)
    """Head from embeddings to predictions; None: the embeddings are the predictions."""

    target: Target = MomentumEncoder()
    """Targets of the predictions."""
