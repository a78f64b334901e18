"""Methods with k-means centroids of all training images as prototypes."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, MinLen

from jaxclr import losses
from jaxclr.affinity import AxisName, unit_rows
from jaxclr.affinity.clustering import Clusters, cluster
from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods.base import Method, MomentumEncoder, Outputs, Sizes, Tree
from jaxclr.methods.memory_queue import enqueue, init_queue

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Pcl(Method):
    """InfoNCE with a queue and with prototypes of several clusterings (PCL, arXiv:2005.04966).

    Negative prototypes are drawn from all; the official code excludes those with images in the
    batch.
    """

    online_views: ClassVar[slice] = slice(0, 1)
    target_views: ClassVar[slice] = slice(1, 2)

    temperature: Annotated[float, Gt(0)] = 0.2
    """Divides the affinities; also the mean of the temperatures of the clusters."""

    queue_size: Annotated[int, Ge(1)] = 16_384
    """Keys of earlier batches; a multiple of the batch."""

    clusters: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (25_000, 50_000, 100_000)
    """Number of clusters of each clustering."""

    negatives: Annotated[int, Ge(0)] = 16_384
    """Negative prototypes drawn from each clustering in a step; all if there are fewer."""

    warmup_epochs: Annotated[int, Ge(0)] = 20
    """Epochs without prototypes; each later epoch starts with a clustering."""

    iterations: Annotated[int, Ge(1)] = 20
    """Iterations of k-means."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, norm=False, bias=True)
    """Head from representations to embeddings."""

    target: MomentumEncoder = MomentumEncoder(momentum=0.999, ramp=False)
    """Encoder of the keys."""

    @property
    def refresh_from(self) -> int:
        """The epoch of the first clustering."""
        return self.warmup_epochs

    def init_state(self, key: Array, sizes: Sizes) -> Tree:
        if max(self.clusters) > sizes.images:
            raise UserError(
                f"method.clusters must be at most {sizes.images}, the number of training images, "
                f"got {self.clusters}."
            )
        queue_key, *keys = jax.random.split(key, 1 + len(self.clusters))
        # Placeholders: the first refresh replaces them before they are used.
        found = [
            Clusters(
                unit_rows(jax.random.normal(one, (count, sizes.embedding))),
                jnp.arange(sizes.images, dtype=jnp.int32) % count,
                jnp.full(count, self.temperature),
            )
            for one, count in zip(keys, self.clusters, strict=True)
        ]
        return {"queue": init_queue(queue_key, self.queue_size, sizes), "clusterings": tuple(found)}

    def refresh(self, state: Tree, embeddings: Array, key: Array) -> Tree:
        keys = jax.random.split(key, len(self.clusters))
        options = {"iterations": self.iterations, "temperature": self.temperature}
        found = [
            cluster(one, embeddings, count, **options)
            for one, count in zip(keys, self.clusters, strict=True)
        ]
        return {**state, "clusterings": tuple(found)}

    def next_state(self, out: Outputs, state: Tree, axis_name: AxisName) -> Tree:
        return {**state, "queue": enqueue(state["queue"], out.targets[0], axis_name)}

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        instances = losses.queue_info_nce(
            out.embeddings[0],
            out.targets[0],
            state["queue"].rows,
            temperature=self.temperature,
            axis_name=axis_name,
        )
        keys = jax.random.split(out.key, len(self.clusters))
        terms = [
            self.of_clusters(out, found, key, axis_name)
            for found, key in zip(state["clusterings"], keys, strict=True)
        ]
        clustered = sum(terms) / len(terms)
        warm = out.epoch >= self.warmup_epochs
        return instances + jnp.where(warm, clustered, jnp.zeros_like(clustered))

    def of_clusters(self, out: Outputs, found: Clusters, key: Array, axis_name: AxisName) -> Array:
        """This device's share of the loss of one clustering."""
        count = len(found.prototypes)
        drawn = jax.random.permutation(key, count)[: self.negatives]
        return losses.proto_nce(
            out.embeddings[0],
            found.prototypes,
            found.assignments[out.indices],
            found.concentrations,
            drawn,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class Pauc(Pcl):
    """PCL plus alignment, uniformity and correlation of prototypes (PAUC, arXiv:2210.10194).

    Reconstructed from the abstract: the form and weights of these three terms are guesses.
    """

    online_views: ClassVar[slice] = slice(None)

    alignment: Annotated[float, Ge(0)] = 1.0
    """Weight of the distance of embeddings from their prototypes."""

    uniformity: Annotated[float, Ge(0)] = 1.0
    """Weight of the uniformity of the batch's prototypes."""

    correlation: Annotated[float, Ge(0)] = 1.0
    """Weight of the distance between their cross-correlation over views and the identity."""

    t: Annotated[float, Gt(0)] = 2.0
    """Scale of the kernel of the uniformity."""

    off_diagonal: Annotated[float, Ge(0)] = 0.0051
    """Weight of correlations of different dimensions."""

    def of_clusters(self, out: Outputs, found: Clusters, key: Array, axis_name: AxisName) -> Array:
        z1, z2 = out.embeddings
        revised = losses.pauc(
            z1,
            z2,
            found.prototypes,
            found.assignments[out.indices],
            alignment=self.alignment,
            uniformity=self.uniformity,
            correlation=self.correlation,
            t=self.t,
            off_diagonal=self.off_diagonal,
            axis_name=axis_name,
        )
        return super().of_clusters(out, found, key, axis_name) + revised
