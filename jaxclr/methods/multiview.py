"""Methods for any number of views of each image."""

import dataclasses
from typing import Annotated, ClassVar

import jax
from annotated_types import Ge, Gt, Interval

from jaxclr import losses
from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.methods.base import Method, Outputs, Tree
from jaxclr.methods.contrastive import MocoV3

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class MvInfoNce(Method):
    """InfoNCE of all pairs of views of an image jointly (MV-InfoNCE, arXiv:2507.06979)."""

    more_views: ClassVar[bool] = True

    temperature: Annotated[float, Gt(0)] = 0.5
    """Divides the affinities."""

    projector: Mlp = Mlp(layers=2, hidden=2048, out=128, last_norm=True, last_affine="scale")
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.mv_info_nce(out.embeddings, temperature=self.temperature, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class MvDhel(MvInfoNce):
    """Attraction of all pairs of views, uniformity within each view (MV-DHEL, arXiv:2507.06979)."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.mv_dhel(out.embeddings, temperature=self.temperature, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class Cacr(Method):
    """Attracts far positives and repels close negatives most (CACR, arXiv:2105.03746).

    The paper uses five views for small images: each view has four positives.
    """

    more_views: ClassVar[bool] = True

    attraction: Annotated[float, Ge(0)] = 1.0
    """Weight of the squared distances of positives."""

    repulsion: Annotated[float, Ge(0)] = 1.0
    """Weight of the squared distances of negatives."""

    t_positive: Annotated[float, Ge(0)] = 1.0
    """Inverse temperature of the weights of positives, which grow with distance."""

    t_negative: Annotated[float, Gt(0)] = 0.9
    """Inverse temperature of the weights of negatives, which fall with distance."""

    debias: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Assumed share of positives among the negatives."""

    projector: Mlp = Mlp(layers=2, hidden=4096, out=128, bias=True)
    """Head from representations to embeddings."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        return losses.cacr(
            out.embeddings,
            alpha=self.attraction,
            beta=self.repulsion,
            t_positive=self.t_positive,
            t_negative=self.t_negative,
            debias=self.debias,
            axis_name=axis_name,
        )


@dataclasses.dataclass(frozen=True)
class CacrMocoV3(MocoV3):
    """MoCo v3 with several queries per key, weighted by distance (CACR, arXiv:2105.03746).

    The first two views are keys. Every view is a query of the keys of other views. With two views
    the loss is half that of MoCo v3.
    """

    more_views: ClassVar[bool] = True
    target_views: ClassVar[slice] = slice(0, 2)

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        def of_key(view: int) -> Array:
            queries = out.predictions[:view] + out.predictions[view + 1 :]
            return losses.cacr_rbf(
                queries, out.targets[view], temperature=self.temperature, axis_name=axis_name
            )

        return (of_key(0) + of_key(1)) / 2
