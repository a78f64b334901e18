"""Methods of the studies alone: the supervised ceiling, and losses of each device's own rows."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from jaxclr import methods
from jaxclr.methods import Method, Outputs, Sizes

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Supervised(Method):
    """Cross-entropy of a linear classifier of the representations of both views."""

    needs_labels: ClassVar[bool] = True

    def init_params(self, key: Array, sizes: Sizes) -> Any:
        del key
        return {
            "kernel": jnp.zeros((sizes.representation, sizes.classes)),
            "bias": jnp.zeros((1, sizes.classes)),
        }

    def objective(self, out: Outputs, state: Any, axis_name: Any) -> Array:
        del state, axis_name
        logits = lambda rows: rows @ out.params["kernel"] + out.params["bias"]
        loss = optax.softmax_cross_entropy_with_integer_labels
        return jnp.mean(
            jnp.stack([jnp.mean(loss(logits(r), out.labels)) for r in out.representations])
        )


class Local:
    """Negatives and statistics of the loss are those of a device's own rows.

    Norms of the network still span all devices.
    """

    def objective(self, out: Outputs, state: Any, axis_name: Any) -> Array:
        return super().objective(out, state, None)  # pyright: ignore[reportAttributeAccessIssue]


@dataclasses.dataclass(frozen=True)
class LocalSimClr(Local, methods.SimClr):
    """SimCLR with the negatives of each device."""


@dataclasses.dataclass(frozen=True)
class LocalSimAffinity(Local, methods.SimAffinity):
    """SimAffinity with the affinity matrix of each device."""


@dataclasses.dataclass(frozen=True)
class LocalSimWhitening(Local, methods.SimWhitening):
    """SimWhitening with the statistics and the affinity matrix of each device."""


@dataclasses.dataclass(frozen=True)
class LocalSimTracePlain(Local, methods.SimTracePlain):
    """The plain SimTrace with the statistics of each device."""


LOCAL = {kind.__bases__[1]: kind for kind in Local.__subclasses__()}


def local(method: Method) -> Method:
    """The method with the loss of each device's own rows."""
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return LOCAL[type(method)](**fields)
