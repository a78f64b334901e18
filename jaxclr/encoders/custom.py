"""Custom encoders: Linen and NNX modules, copies, and separate encoders for each view."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import flax.linen as nn
import jax
from annotated_types import Ge
from flax import nnx

from jaxclr.encoders.heads import SideBySide
from jaxclr.encoders.layers import AxisName, Precision
from jaxclr.errors import UserError
from jaxclr.fields import check_fields

ACCEPTED = (
    "an encoder of jaxclr.encoders, an object with build(axis_name) -> flax.linen.Module, a Linen "
    "module called module(x, train) or module(x), encoders.Nnx(factory), or a tuple of these, one "
    "for each view"
)


@dataclasses.dataclass(frozen=True)
class Nnx:
    """A Flax NNX module as an encoder.

    `nnx.BatchNorm` layers without an `axis_name` get that of the training step, so that their
    statistics are those of the global batch. Dropout has new random keys in every step.
    `module.train()` and `module.eval()` are called as needed.

    >>> Nnx(lambda rngs: nnx.Linear(64, 32, rngs=rngs)).build(None).__class__.__name__
    'NnxModule'

    Args:
      factory: a function of `nnx.Rngs` that returns a module, called as module(x) with the output
        of a view.

    Raises:
      UserError: the factory is not a function.
    """

    factory: Callable[[nnx.Rngs], nnx.Module]

    def __post_init__(self) -> None:
        if not callable(self.factory) or isinstance(self.factory, nnx.Module):
            raise UserError(
                "encoders.Nnx takes a function of rngs that returns a module, got "
                f"{type(self.factory).__name__}."
            )

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(x, train); its BatchNorms span axis_name."""
        return NnxModule(self.factory, axis_name)


@dataclasses.dataclass(frozen=True)
class Copies:
    """Copies of an encoder, each with its own weights, whose representations are side by side.

    >>> Copies(jaxclr.encoders.SmallConv()).count
    2

    Args:
      encoder: an encoder with build(axis_name), as those of this library.
      count: number of copies; of [b, F] each the representation is [b, count * F].

    Raises:
      UserError: a field is invalid.
    """

    encoder: Any
    count: Annotated[int, Ge(1)] = 2

    def __post_init__(self) -> None:
        check_fields(self, "Copies")
        check_encoder((self.encoder,))
        if isinstance(self.encoder, nn.Module):
            raise UserError(
                "Copies.encoder must have build(axis_name), which makes the module of each copy; "
                f"got the module {type(self.encoder).__name__}."
            )

    @property
    def dtype(self) -> Precision:
        """That of the encoder."""
        return precision_of(self.encoder)

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(x, train)."""
        return SideBySide(tuple(build_encoder(self.encoder, axis_name) for _ in range(self.count)))


class NnxModule(nn.Module):
    """An NNX module as a Linen module, with collections "params" and "batch_stats"."""

    factory: Callable[[nnx.Rngs], nnx.Module]
    axis_name: AxisName

    @nn.compact
    def __call__(
        self, x: Any, train: bool, is_frozen: Callable[..., bool] = lambda *path: False
    ) -> jax.Array:
        def call(module: nnx.Module, x: Any) -> jax.Array:
            module.train() if train else module.eval()
            for path, part in nnx.iter_graph(module):
                if isinstance(part, nnx.BatchNorm):
                    if part.axis_name is None:
                        part.axis_name = self.axis_name  # pyright: ignore[reportAttributeAccessIssue]
                    if is_frozen("module", *map(str, path)):
                        part.use_running_average = True
            return module(x)  # pyright: ignore[reportCallIssue]

        keys = {name: self.make_rng(name) for name in ("params", "dropout") if self.has_rng(name)}
        # Evaluation has no "params" key. It replaces initial parameters, so any key will do.
        rngs = nnx.Rngs(keys.pop("params", jax.random.key(0)), **keys)
        module = nnx.bridge.ToLinen(
            lambda: self.factory(rngs), skip_rng=True, metadata_fn=None, name="module"
        )
        return module(x, nnx_method=call)


class WithoutTrain(nn.Module):
    """Wraps a Linen module called module(x) as one called module(x, train)."""

    module: nn.Module

    def __call__(self, x: Any, train: bool) -> jax.Array:
        del train
        return self.module(x)


class PerView(nn.Module):
    """A module for each view, called as module(x, train, view)."""

    modules: tuple[nn.Module, ...]

    def __call__(self, x: Any, train: bool, view: int) -> jax.Array:
        return self.modules[view](x, train)


def towers_of(encoder: Any) -> tuple[Any, ...]:
    """The encoders of the views; a single one if all views share it."""
    return encoder if isinstance(encoder, tuple) else (encoder,)


def check_encoder(encoder: Any) -> None:
    """Raises UserError unless `encoder` can be built, by `build_encoder`.

    The accepted objects are listed in `ACCEPTED`.
    """
    towers = towers_of(encoder)
    for tower in towers:
        is_class = isinstance(tower, type)
        if is_class or not (
            isinstance(tower, nn.Module) or callable(getattr(tower, "build", None))
        ):
            hint = f" Call it: {tower.__name__}(...)." if is_class else ""
            if isinstance(tower, nnx.Module):
                hint = " Give encoders.Nnx(factory), whose factory returns the module."
            name = tower.__name__ if is_class else type(tower).__name__
            raise UserError(
                f"encoder must be {ACCEPTED}; got {'the class ' * is_class}{name}.{hint}"
            )
    if not towers:
        raise UserError(f"encoder must be {ACCEPTED}; got an empty tuple.")


def build_encoder(encoder: Any, axis_name: AxisName) -> nn.Module:
    """The Linen module of one encoder, called as module(x, train).

    Args:
      encoder: any encoder that `check_encoder` accepts, except a tuple.
      axis_name: mapped axis for statistics of the global batch. A custom Linen module has to set
        it in its own norms.

    Raises:
      UserError: `build` does not return a Linen module.
    """
    module = encoder if isinstance(encoder, nn.Module) else encoder.build(axis_name)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{type(encoder).__name__}.build(axis_name) returned {type(module).__name__}, not a "
            "flax.linen.Module."
        )
    return module if _takes_train(module) else WithoutTrain(module)


def precision_of(encoder: Any) -> Precision:
    """The precision of the heads: the encoder's `dtype` if it has one, otherwise float32."""
    dtype = getattr(encoder, "dtype", None)
    return dtype if dtype in ("float32", "bfloat16") and isinstance(dtype, str) else "float32"


def _takes_train(module: nn.Module) -> bool:
    """Whether a module is called module(x, train)."""
    parameters = list(inspect.signature(type(module).__call__).parameters.values())[2:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return bool(positional) and (
        positional[0].name == "train" or positional[0].default is inspect.Parameter.empty
    )
