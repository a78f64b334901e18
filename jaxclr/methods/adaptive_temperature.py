"""Contrastive methods with learned temperatures for each pair."""

import dataclasses
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp, Precision, SideBySide
from jaxclr.errors import UserError
from jaxclr.methods.base import Method, Outputs, Sizes, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Amcl(Method):
    r"""NT-Xent of several heads with a learned temperature per pair (AMCL, arXiv:2310.05615).

    .. math:: \tau_{ij} = \tau_0
       + (\tau_1 - \tau_0) \operatorname{sigmoid} (-\langle \phi(\hat z_i), \phi(\hat z_j) \rangle)

    where phi is a multi-layer perceptron shared by all heads. Small temperatures give large
    gradients: clip their norm, as the official code does at 1. Temperatures and widths are that
    code's; its loss takes only the nearest negatives, without log-sum-exp, as
    `losses.adaptive_multi_head` says. Heads have BatchNorm, as SimCLR's; its own have none.
    """

    heads: Annotated[int, Ge(1)] = 3
    """Number of projectors."""

    penalty: Annotated[float, Ge(0)] = 1e-4
    """Weight of the penalty on large temperatures."""

    least_temperature: Annotated[float, Gt(0)] = 1e-5
    """Lower bound of the temperatures."""

    most_temperature: Annotated[float, Gt(0)] = 2.0
    """Upper bound of the temperatures."""

    temperature_hidden: Annotated[int, Ge(1)] = 128
    """Width of phi's hidden layer."""

    projector: Mlp = Mlp(layers=2, hidden=512, out=128)
    """Head from representations to embeddings; each has its own weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.least_temperature < self.most_temperature:
            raise UserError(
                "method.least_temperature must be below method.most_temperature, "
                f"got {self.least_temperature} and {self.most_temperature}."
            )

    def build_projector(self, axis_name: AxisName, dtype: Precision) -> nn.Module:
        return SideBySide(tuple(self.projector.build(axis_name, dtype) for _ in range(self.heads)))

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        features = jnp.zeros((1, sizes.embedding // self.heads))
        return _Phi(self.temperature_hidden).init(key, features)["params"]

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        phi = lambda x: _Phi(self.temperature_hidden).apply({"params": out.params}, x)

        def temperatures(x: Array, y: Array) -> Array:
            fraction = jax.nn.sigmoid(-jnp.einsum("...d,...d->...", phi(x), phi(y)))
            return self.least_temperature + fraction * (
                self.most_temperature - self.least_temperature
            )

        by_head = lambda z: jnp.moveaxis(z.reshape(len(z), self.heads, -1), 1, 0)
        z1, z2 = map(by_head, out.embeddings)
        return losses.adaptive_multi_head(
            z1, z2, temperatures, beta=self.penalty, axis_name=axis_name
        )


class _Phi(nn.Module):
    """Unit features [..., D] to features [..., D] whose inner products give temperatures."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(x.shape[-1], name="out")(hidden)
