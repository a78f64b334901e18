"""The placeholder method of imported encoders."""

import dataclasses
from typing import ClassVar

import jax

from jaxclr.affinity import AxisName
from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods.base import Method, Outputs, Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Imported(Method):
    """Placeholder for the unknown method of imported weights; it cannot train."""

    views: ClassVar[int] = 1

    projector: ClassVar[Mlp] = Mlp(layers=1, out=1)  # not a field, since it is not used

    file: str = ""
    """Path of the file."""

    prefix: str = ""
    """Prefix of the encoder's weights in that file."""

    def objective(self, out: Outputs, state: Tree, axis_name: AxisName) -> Array:
        raise UserError(
            f"The encoder was imported from {self.file} and has no objective to train with; "
            "evaluate, embed or export it."
        )
