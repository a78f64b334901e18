"""Images as uint8 arrays in memory or streamed from files: sources, statistics, the order of an epoch."""

from jaxclr.data.config import Data
from jaxclr.data.dataset import Dataset
from jaxclr.data.dataset import Split
from jaxclr.data.order import epoch_order
from jaxclr.data.sources import SOURCES
from jaxclr.data.sources import load
from jaxclr.data.statistics import channel_statistics
from jaxclr.data.stream import Stream

__all__ = (
    "Data",
    "Dataset",
    "SOURCES",
    "Split",
    "Stream",
    "channel_statistics",
    "epoch_order",
    "load",
)
