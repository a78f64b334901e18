"""Import and export: embeddings, encoders as functions, weights by PyTorch's names, StableHLO."""

from jaxclr.interop.loading import Loaded as Loaded
from jaxclr.interop.loading import load as load
