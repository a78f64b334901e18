"""Contrastive and joint-embedding self-supervised learning on the global affinity matrix.

`train` trains a `Config` in a folder, `Run` opens such a folder, and `load` loads an encoder.
`losses` and `affinity` need JAX only. Every module is imported on first access.
"""

from typing import TYPE_CHECKING, Any

from jaxclr.errors import UserError as UserError
from jaxclr.errors import optional
from jaxclr.version import __version__ as __version__

if TYPE_CHECKING:
    from jaxclr import affinity as affinity
    from jaxclr import augment as augment
    from jaxclr import data as data
    from jaxclr import encoders as encoders
    from jaxclr import evaluation as evaluation
    from jaxclr import interop as interop
    from jaxclr import losses as losses
    from jaxclr import methods as methods
    from jaxclr import steps as steps
    from jaxclr import training as training
    from jaxclr.api import Run as Run
    from jaxclr.api import train as train
    from jaxclr.data import Data as Data
    from jaxclr.interop import load as load
    from jaxclr.runs.config import Config as Config

_MODULES = (
    "affinity",
    "augment",
    "data",
    "encoders",
    "evaluation",
    "interop",
    "losses",
    "methods",
    "steps",
    "training",
)
_NAMES = {
    "Config": "jaxclr.runs.config",
    "Data": "jaxclr.data",
    "Run": "jaxclr.api",
    "load": "jaxclr.interop",
    "train": "jaxclr.api",
}

__all__ = ["UserError", "__version__", *_NAMES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES and name not in _NAMES:
        raise AttributeError(f"module 'jaxclr' has no attribute '{name}'")
    if name in _MODULES:
        return optional(f"jaxclr.{name}")
    value = getattr(optional(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
