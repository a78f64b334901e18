"""What every public loss needs and costs, read from its docstring: for tables and for choosing.

The docstring of a loss has these lines:

    Needs: what it takes; "two views" are q and k or z1 and z2 alone.
    Cost: time of value and gradient, by the images B of the global batch, their dimensions D,
      the views V, ... The memory beside the inputs is a tile, or D x D if the cost has D squared.
    Global batch: what is computed over all devices; "nothing" if rows are independent.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxclr import losses


class Facts(NamedTuple):
    """What the docstring of a loss says.

    Attributes:
      needs: the line "Needs".
      cost: the line "Cost".
      global_batch: the line "Global batch".
      paper: arXiv number of the first paper that it refers to.
    """

    needs: str
    cost: str
    global_batch: str
    paper: str


def facts(loss: Callable[..., Any]) -> Facts:
    """The facts of a loss; "" for what its docstring does not say."""
    text = inspect.getdoc(loss) or ""
    lines = (rf"^{label}: (.+)\.$" for label in ("Needs", "Cost", "Global batch"))
    found = [re.search(line, text, re.MULTILINE) for line in (*lines, r"arXiv:(\d{4}\.\d{4,5})")]
    return Facts(*(match.group(1) if match else "" for match in found))


def public_losses() -> dict[str, Callable[..., Any]]:
    """The functions of `jaxclr.losses` by name."""
    return {name: value for name, value in vars(losses).items() if inspect.isfunction(value)}
