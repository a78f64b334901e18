"""Model selection without labels."""

import dataclasses
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Ge

from jaxclr.errors import UserError
from jaxclr.evaluation.images import image_batches
from jaxclr.evaluation.metrics import augmentation_confusion_ratio, average_relative_confusion
from jaxclr.evaluation.protocols.base import Protocol, Result, Subject, check_finite

_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Arc(Protocol):
    """Average relative confusion by the run's augmentation: ranks runs without labels, higher is better (arXiv:2203.13457).

    ACR is the share of views whose nearest neighbour, among the views of all images, is of another image; ARC is
    (1 - ACR) / (1 - ACR of the untrained network). Embeddings are projector outputs.
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
        embedded, first = [], 0
        for images, _ in image_batches(subject.train, size=subject.size, batch=_BATCH, rows=rows):
            some = np.arange(_BATCH) % len(images)  # the last are fewer
            pair = subject.embed_views(keys[first + some], images[some], self.views)
            embedded.append([np.asarray(views)[:, : len(images)] for views in pair])
            first += len(images)
        trained, untrained = (np.concatenate(parts, axis=1) for parts in zip(*embedded))
        for name, views in (("trained", trained), ("untrained", untrained)):
            check_finite(name, views.reshape(-1, views.shape[2]))
        acr, initial = (float(augmentation_confusion_ratio(jnp.asarray(views))) for views in (trained, untrained))
        if initial == 1:
            raise UserError(
                f"The untrained network confuses all {count} images, and nothing is relative to that; ask for fewer --images."
            )
        arc = float(average_relative_confusion(acr, initial))
        return Result({"ARC": (arc,), "ACR": (acr,), "ACR untrained": (initial,)})
