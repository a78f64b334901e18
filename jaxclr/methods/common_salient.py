"""Methods that separate what two data sets share from what one of them has in addition."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp, Precision
from jaxclr.errors import UserError
from jaxclr.methods.base import Method, Outputs, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SepClr(Method):
    """Common features of two data sets, and salient ones of the second (SepCLR, arXiv:2402.11928).

    Labels name the data set of each image: one class holds the background images, all others hold
    target images. A folder with the folders background and target has these labels. The first half
    of a representation is common, the second half salient; embeddings likewise. The paper has two
    encoders: `encoders.Copies(encoder)`. Any other encoder shares its weights between the halves.

    The official encoders end with a linear layer to 32 numbers, the representation; here it is
    what is before that layer. Weights are those of CIFAR-10 with MNIST digits, for Adam with rate
    3e-4: they make large gradients, so with SGD clip their norm. The supervised variant is not
    included.
    """

    needs_labels: ClassVar[bool] = True

    background: Annotated[int, Ge(0)] = 0
    """Index of the class of background images, in the order in which classes are listed."""

    salient_weight: Annotated[float, Ge(0)] = 1000.0
    """Weight of alignment and uniformity of salient embeddings."""

    background_weight: Annotated[float, Ge(0)] = 1000.0
    """Weight of the squared norm of background images' salient embeddings."""

    joint_entropy_weight: Annotated[float, Ge(0)] = 10.0
    """Weight of the joint entropy, against information shared by common and salient embeddings."""

    projector: Mlp = Mlp(layers=2, hidden=128, out=32, bias=True)
    """Head from a half of a representation to embeddings; each half has its own weights."""

    def build_projector(self, axis_name: AxisName, dtype: Precision) -> nn.Module:
        return Halves(*(self.projector.build(axis_name, dtype) for _ in range(2)))

    def check_classes(self, classes: Sequence[str]) -> None:
        if len(classes) < 2 or self.background >= len(classes):
            raise UserError(
                f"SepClr needs class {self.background} of background images (method.background, "
                f"from 0) and others of target images, got {len(classes)} class(es); give a "
                "folder with the folders background and target, or set --method.background."
            )

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        (c1, s1), (c2, s2) = (jnp.split(z, 2, axis=1) for z in out.embeddings)
        return losses.sep_clr(
            c1,
            c2,
            s1,
            s2,
            (out.labels != self.background).astype(jnp.int32),
            salient_weight=self.salient_weight,
            background_weight=self.background_weight,
            joint_entropy_weight=self.joint_entropy_weight,
            axis_name=axis_name,
        )


class Halves(nn.Module):
    """A head for each half of its input [b, F], with outputs side by side."""

    first: nn.Module
    second: nn.Module

    def __call__(self, x: Array, train: bool) -> Array:
        middle = x.shape[1] // 2
        halves = self.first(x[:, :middle], train), self.second(x[:, middle:], train)
        return jnp.concatenate(halves, axis=-1)
