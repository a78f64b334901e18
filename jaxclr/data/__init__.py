"""Data sets in memory or streamed, channel statistics, and the shuffling of epochs."""

from jaxclr.data.arrays import Arrays
from jaxclr.data.dataset import Dataset, Split
from jaxclr.data.random_access import Records, Source
from jaxclr.data.shuffling import epoch_order
from jaxclr.data.source_options import SOURCES, Data, absolute
from jaxclr.data.sources import load, register
from jaxclr.data.statistics import channel_statistics
from jaxclr.data.stream import Stream

__all__ = (
    "Arrays",
    "Data",
    "Dataset",
    "Records",
    "SOURCES",
    "Source",
    "Split",
    "Stream",
    "absolute",
    "channel_statistics",
    "epoch_order",
    "load",
    "register",
)
