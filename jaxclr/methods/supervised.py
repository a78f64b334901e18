"""Methods with labels."""

import dataclasses
from typing import Annotated, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt

from jaxclr import losses
from jaxclr.affinity import AxisName, batch_size, gather_rows, row_ids
from jaxclr.encoders import Mlp
from jaxclr.encoders.layers import batch_norm
from jaxclr.methods.base import Method, Outputs, Sizes, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SupCon(Method):
    """Contrastive loss whose positives are all views of a class (SupCon, arXiv:2004.11362)."""

    more_views: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    temperature: Annotated[float, Gt(0)] = 0.07
    """Divides the affinities."""

    base_temperature: Annotated[float, Gt(0)] = 0.07
    """The loss is multiplied by temperature / base_temperature."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, norm=False, bias=True)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.sup_con(
            out.embeddings,
            out.labels,
            temperature=self.temperature,
            base_temperature=self.base_temperature,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class Hydra(Method):
    """Contrastive loss of features gated by two classes (Hydra or SimLAP, arXiv:2410.18200).

    The second class is that of a row drawn from the global batch. The projector ends with a
    BatchNorm, as other heads here; the official one ends with a LayerNorm. The official linear
    probe of the representations is not trained.
    """

    views: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = True

    temperature: Annotated[float, Gt(0)] = 0.1
    """Divides the affinities."""

    gate_embedding: Annotated[int, Ge(1)] = 512
    """Width of the gate's embeddings of classes."""

    gate_hidden: Annotated[int, Ge(1)] = 1024
    """Width of the gate's hidden layer."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=256, last_norm=True)
    """Head from representations to embeddings."""

    def init_params(self, key: Array, sizes: Sizes) -> Tree:
        gate = self._gate(sizes.classes, sizes.embedding, axis_name=None)
        label = jnp.zeros(1, jnp.int32)
        return gate.init(key, label, label)["params"]

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        (z,) = out.embeddings
        rows = jax.random.permutation(out.key, batch_size(z, axis_name))
        partners = gather_rows(out.labels, axis_name)[rows[row_ids(z, axis_name)]]
        classes = len(out.params["classes"]["embedding"])
        gate, _ = self._gate(classes, z.shape[1], axis_name).apply(
            {"params": out.params}, out.labels, partners, mutable=["batch_stats"]
        )
        return losses.gated_contrast(
            z, gate, out.labels, partners, temperature=self.temperature, axis_name=axis_name
        )

    def _gate(self, classes: int, width: int, axis_name: AxisName) -> nn.Module:
        return _Gate(classes, self.gate_embedding, self.gate_hidden, width, axis_name)


class _Gate(nn.Module):
    """Gates in (0, 1), [b, out], of labels [b] and the labels of their partners [b]."""

    classes: int
    embedding: int
    hidden: int
    out: int
    axis_name: AxisName

    @nn.compact
    def __call__(self, labels: Array, partners: Array) -> Array:
        embed = nn.Embed(
            self.classes, self.embedding, embedding_init=nn.initializers.normal(1.0), name="classes"
        )
        # The gate is used in training only, so its norms use batch statistics.
        norm = lambda x: batch_norm("float32", self.axis_name, train=True)(nn.relu(x))
        x = nn.Dense(self.hidden, name="hidden")(norm((embed(labels) + embed(partners)) / 2))
        return nn.sigmoid(nn.Dense(self.out, name="out")(norm(x)))
