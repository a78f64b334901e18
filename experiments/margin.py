"""A custom loss and its method, on the embedded digits.

    jaxclr train experiments/margin.py

The log-sum-exp of the negatives of a row is pushed a margin below its positive. Time and accuracy:
see digits.py; it takes as long, and nothing was tuned.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxclr.affinity import positives, row_logsumexp
from jaxclr.losses.compose import affinity_loss, both_views, unit
from jaxclr.methods import SimClr
from jaxclr.training import Config


def below_margin(affinity, *, temperature, axis_name, margin=1.0, **_):
    """Mean of max(0, margin + logsumexp(negatives) - positive) over rows of the global batch."""
    rows = affinity.rows / temperature
    negatives = row_logsumexp(rows, affinity.columns, exclude=affinity.images, axis_name=axis_name)
    return jnp.mean(jax.nn.relu(margin + negatives - positives(rows, affinity.columns)))


@dataclasses.dataclass(frozen=True)
class Margin(SimClr):
    """A hinge on the log-sum-exp of the negatives of both views."""

    def objective(self, out, state, axis_name):
        options = {
            "transform": both_views(unit),
            "readout": below_margin,
            "temperature": self.temperature,
        }
        return affinity_loss(*out.embeddings, **options, axis_name=axis_name)


def config() -> Config:
    import digits  # here, because reading a run imports this file alone

    return dataclasses.replace(
        digits.config("simclr"), method=Margin(temperature=0.2).with_heads(hidden=128, out=64)
    )
