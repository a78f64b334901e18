"""Methods of two towers with trained temperatures, for images and texts or two views of images."""

import dataclasses
import functools
import math
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Gt

from jaxclr import losses
from jaxclr.affinity import AxisName, sum_over
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Sizes, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Clip(Method):
    """Cross-entropy in both directions at a trained temperature (CLIP, arXiv:2103.00020).

    With a tuple of two encoders each modality has its own; with one, the views of an image share
    it. OpenCLIP cuts the scale back after each step; here the scale beyond its bound is not used,
    and has no gradient that would raise it.
    """

    temperature: Annotated[float, Gt(0)] = 0.07
    """Divides the affinities at first."""

    largest_scale: Annotated[float, Gt(0)] = 100.0
    """Largest inverse of the temperature."""

    projector: Mlp = Mlp(layers=1, out=512)
    """Head from representations to embeddings; each encoder has its own."""

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        return {"log_scale": jnp.full((), -math.log(self.temperature))}

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        log_scale: Array = at_most(out.params["log_scale"], math.log(self.largest_scale), axis_name)
        return losses.clip(*out.embeddings, temperature=jnp.exp(-log_scale), axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class SigLip(Method):
    """Logistic loss of each pair, temperature and bias trained (SigLIP, arXiv:2303.15343).

    Encoders are those of CLIP: one for each modality, or one for the views of an image.
    """

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities at first."""

    bias: float = -10.0
    """Added to the divided affinities at first."""

    projector: Mlp = Mlp(layers=1, out=768, bias=True)
    """Head from representations to embeddings; each encoder has its own."""

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        return {
            "bias": jnp.full((), self.bias),
            "log_scale": jnp.full((), -math.log(self.temperature)),
        }

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.siglip(
            *out.embeddings,
            temperature=jnp.exp(-out.params["log_scale"]),
            bias=out.params["bias"],
            axis_name=axis_name,
        )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def at_most(value: Array, bound: float, axis_name: AxisName) -> Array:
    """The smaller of value [] and bound; beyond the bound, only a gradient that lowers passes.

    A minimum would have no gradient there, so that the value could not come back.
    """
    return jnp.minimum(value, bound)


def _at_most_forward(value: Array, bound: float, axis_name: AxisName) -> tuple[Array, Array]:
    return jnp.minimum(value, bound), value


def _at_most_backward(bound: float, axis_name: AxisName, value: Array, gradient: Array):
    lowers = sum_over(gradient, axis_name) > 0  # of the global batch, alike on all devices
    return (jnp.where((value <= bound) | lowers, gradient, jnp.zeros_like(gradient)),)


at_most.defvjp(_at_most_forward, _at_most_backward)
