"""What leaves and enters: embeddings, encoders as functions, weights under PyTorch's names, StableHLO."""

from jaxclr.interop.loading import Loaded as Loaded
from jaxclr.interop.loading import load as load
