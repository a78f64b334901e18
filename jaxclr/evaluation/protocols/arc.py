"""Model selection without labels."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge

from jaxclr.augment import Augmentation, with_views
from jaxclr.errors import UserError
from jaxclr.evaluation.feature_checks import check_finite
from jaxclr.evaluation.features import finite_rows
from jaxclr.evaluation.metrics import augmentation_confusion_ratio, average_relative_confusion
from jaxclr.evaluation.protocols.protocol import Protocol, Result
from jaxclr.evaluation.subject import Subject, on_one_device
from jaxclr.methods import Branch
from jaxclr.steps.examples import apply_in_batches, batches
from jaxclr.steps.views import normalize_view

Array = jax.Array

_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Arc(Protocol):
    """Average relative confusion: ranks runs without labels, higher is better (arXiv:2203.13457).

    ACR is the share of views whose nearest neighbor, among the views of all images, is of another
    image; ARC is (1 - ACR) / (1 - ACR of the untrained network). Embeddings are projector outputs.
    Every host holds those of all views by both networks, 8 x images x views x D bytes, and every
    process computes on one device.
    """

    needs_labels: ClassVar[bool] = False
    percent: ClassVar[bool] = False

    images: Annotated[int, Ge(2)] = 1024
    """Training images, drawn at random; all of them if there are fewer."""

    views: Annotated[int, Ge(2)] = 6
    """Views of each, of the run's augmentation."""

    def run(self, subject: Subject, seed: int) -> Result:
        count = min(self.images, subject.train.size)
        rows = np.random.default_rng(seed).choice(subject.train.size, count, replace=False)
        keys = jax.random.split(jax.random.key(seed), count)
        function, embedded, first = embed_views(subject, self.views), [], 0
        for some in batches(subject.train, size=subject.size, batch=_BATCH, rows=rows):
            last = first + len(some.labels)
            pairs = keys[first:last], some.data
            embedded.append(apply_in_batches(function, pairs, batch=_BATCH))
            first = last
        pair = (np.concatenate(parts).swapaxes(0, 1) for parts in zip(*embedded, strict=True))
        acr, initial = map(_confusion, ("trained", "untrained"), pair)
        if initial == 1:
            raise UserError(
                f"The untrained network confuses all {count} images, so nothing can be compared "
                "with it; ask for fewer --images."
            )
        arc = float(average_relative_confusion(acr, initial))
        return Result({"ARC": (arc,), "ACR": (acr,), "ACR untrained": (initial,)})


def _confusion(name: str, views: np.ndarray) -> float:
    check_finite(name, finite_rows(views.reshape(-1, views.shape[2])))
    return float(augmentation_confusion_ratio(jnp.asarray(views)))


def embed_views(subject: Subject, count: int) -> Callable[[Any], tuple[Array, Array]]:
    """Projector outputs of views, [b, count, D], by the trained and by the untrained network.

    A function of typed keys [b] and examples; views are those of the augmentation that are as large
    as its first one, in turn.
    """
    recipe = subject.recipe
    first, *rest = recipe.augmentation.views
    size = lambda view: getattr(view, "size", None)
    alike = Augmentation((first, *(view for view in rest if size(view) == size(first))))

    @jax.jit
    def of_network(variables: Any, keys: Array, images: Array) -> Array:
        views = jax.tree.map(lambda *each: jnp.stack(each), *with_views(alike, count)(keys, images))

        def embed(view: Any) -> Array:
            found = recipe.network.apply(variables, normalize_view(view, recipe), train=False)
            return cast(Branch, found).embedding.astype(jnp.float32)

        return jax.lax.map(embed, views).swapaxes(0, 1)

    both = [on_one_device(state) for state in (subject.state, subject.init_state())]
    return lambda some: tuple(of_network(variables, *some) for variables in both)
