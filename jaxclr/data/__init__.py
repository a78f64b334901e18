"""Images as uint8 arrays in memory or streamed from files: sources, statistics, the order of an epoch."""

from jaxclr.data.config import Data
from jaxclr.data.dataset import Dataset, Split
from jaxclr.data.order import epoch_order
from jaxclr.data.sources import SOURCES, load
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
