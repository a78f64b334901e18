"""Self-supervised learning on the global affinity matrix of two sets of embeddings."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from jaxclr.interop import Loaded


def load(run: "str | os.PathLike[str]") -> "Loaded":
    """The encoder of a run, ready to use; see `jaxclr.interop.load`."""
    # Here, so that the losses can be imported with nothing but JAX.
    from jaxclr.interop import load as load_run

    return load_run(run)
