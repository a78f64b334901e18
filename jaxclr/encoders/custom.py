"""What may stand for an encoder: a spec, a Linen or NNX module of a user's own, or one for each view."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from jaxclr.encoders.layers import AxisName, Precision
from jaxclr.errors import UserError

TAKEN = (
    "an encoder of jaxclr.encoders, an object with build(axis_name) -> flax.linen.Module, a Linen module called "
    "module(x, train) or module(x), encoders.Nnx(factory), or a tuple of these, one for each view"
)


@dataclasses.dataclass(frozen=True)
class Nnx:
    """A Flax NNX module as an encoder.

    `nnx.BatchNorm` layers without an `axis_name` of their own get that of the training step, so that their statistics are
    those of the global batch. Layers that draw (dropout) get fresh keys in every step; `module.train()` and
    `module.eval()` are called as needed.

    >>> Nnx(lambda rngs: nnx.Linear(64, 32, rngs=rngs)).build(None).__class__.__name__
    'NnxModule'

    Args:
      factory: takes `nnx.Rngs` and returns a module called module(x), x being what the view gave.

    Raises:
      UserError: the factory cannot be called.
    """

    factory: Callable[[nnx.Rngs], nnx.Module]

    def __post_init__(self) -> None:
        if not callable(self.factory) or isinstance(self.factory, nnx.Module):
            raise UserError(
                f"encoders.Nnx takes a function of rngs that returns a module, got {type(self.factory).__name__}."
            )

    def build(self, axis_name: AxisName) -> nn.Module:
        """The Linen module, called as module(x, train); its BatchNorms span axis_name."""
        return NnxModule(self.factory, axis_name)


class NnxModule(nn.Module):
    """An NNX module in Linen's clothes; parameters and statistics are in the collections "params" and "batch_stats"."""

    factory: Callable[[nnx.Rngs], nnx.Module]
    axis_name: AxisName

    @nn.compact
    def __call__(self, x: Any, train: bool) -> jax.Array:
        def call(module: nnx.Module, x: Any) -> jax.Array:
            module.train() if train else module.eval()
            for _, part in nnx.iter_graph(module):
                if isinstance(part, nnx.BatchNorm) and part.axis_name is None:
                    part.axis_name = self.axis_name
            return module(x)  # pyright: ignore[reportCallIssue]

        drawn = {name: self.make_rng(name) for name in ("params", "dropout") if self.has_rng(name)}
        # In evaluation nothing is drawn that is used: parameters are those of the state.
        rngs = nnx.Rngs(drawn.pop("params", jax.random.key(0)), **drawn)
        module = nnx.bridge.ToLinen(
            lambda: self.factory(rngs), skip_rng=True, metadata_fn=None, name="module"
        )
        return module(x, nnx_method=call)


class WithoutTrain(nn.Module):
    """A Linen module called module(x), as one called module(x, train)."""

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
    """The encoders, one for each view; a single one where all views share it."""
    return encoder if isinstance(encoder, tuple) else (encoder,)


def check_encoder(encoder: Any) -> None:
    """Raises UserError unless `build_encoder` takes this."""
    towers = towers_of(encoder)
    for tower in towers:
        is_class = isinstance(tower, type)
        if is_class or not (
            isinstance(tower, nn.Module) or callable(getattr(tower, "build", None))
        ):
            hint = f" Call it: {tower.__name__}(...)." if is_class else ""
            if isinstance(tower, nnx.Module):
                hint = " Give encoders.Nnx(factory), whose factory makes the module."
            name = tower.__name__ if is_class else type(tower).__name__
            raise UserError(f"encoder must be {TAKEN}; got {'the class ' * is_class}{name}.{hint}")
    if not towers:
        raise UserError(f"encoder must be {TAKEN}; got an empty tuple.")


def build_encoder(encoder: Any, axis_name: AxisName) -> nn.Module:
    """The Linen module of one encoder (not a tuple), called as module(x, train).

    Args:
      encoder: what `check_encoder` takes.
      axis_name: for statistics of the global batch, which a Linen module of a user's own asks for itself.

    Raises:
      UserError: `build` returns something else than a Linen module.
    """
    module = encoder if isinstance(encoder, nn.Module) else encoder.build(axis_name)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{type(encoder).__name__}.build(axis_name) returned {type(module).__name__}, not a flax.linen.Module."
        )
    return module if _takes_train(module) else WithoutTrain(module)


def precision_of(encoder: Any) -> Precision:
    """The precision that heads share with a spec of this library; float32 beside other encoders."""
    dtype = getattr(encoder, "dtype", None)
    return dtype if dtype in ("float32", "bfloat16") and isinstance(dtype, str) else "float32"


def _takes_train(module: nn.Module) -> bool:
    """Whether a module is called module(x, train)."""
    parameters = list(inspect.signature(type(module).__call__).parameters.values())[2:]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return bool(positional) and (
        positional[0].name == "train" or positional[0].default is inspect.Parameter.empty
    )
