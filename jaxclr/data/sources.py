"""Loading of data sets, and registration of sources by name."""

import dataclasses
import importlib
from typing import Any

from jaxclr.data import arrays, random_access
from jaxclr.data.arrays import Arrays
from jaxclr.data.dataset import Dataset, Split
from jaxclr.data.random_access import Source
from jaxclr.data.source_options import SOURCES, Data, Load, NamedSource
from jaxclr.errors import UserError

_BUILT_IN = tuple(SOURCES)


def register(name: str, load: Load) -> None:
    """Registers a source: `Data("name:argument")` is then loaded by `load("argument", data)`.

    Args:
      name: the text before the colon.
      load: a function of the text after the colon ("" without a colon) and the `Data` that returns
        `Arrays` or a `Source`.

    Raises:
      UserError: the name is that of a built-in source, contains a colon or is empty.
    """
    if name in _BUILT_IN or ":" in name or not name:
        raise UserError(
            f"A source cannot be registered as '{name}': give a name that has no colon and is not "
            f"{', '.join(_BUILT_IN[:-1])} or {_BUILT_IN[-1]}."
        )
    SOURCES[name] = NamedSource(load, "ARGUMENT", optional=True)


def load(data: Data | Arrays | Source) -> Dataset:
    """Loads a data set into memory, or prepares it for streaming.

    >>> jaxclr.data.load(jaxclr.Data(source="digits")).train.examples.shape
    (1437, 8, 8, 1)

    Args:
      data: a named source with its options, or a program's own data.

    Returns:
      The data set: splits with images [N, H, W, C] and labels [N], or streams; class names; names
      of the files left out.

    Raises:
      UserError: the source does not exist, is damaged, has images of different shapes, or does not
        fit in memory; the message names the file and what to do.
    """
    if isinstance(data, Arrays):
        return arrays.load(data)
    if isinstance(data, Source):
        return random_access.load(data)
    name, _, argument = data.source.partition(":")
    load_named = SOURCES[name].load
    if isinstance(load_named, str):
        load_named = importlib.import_module(f"jaxclr.data.{load_named}").load
    dataset = load_named(argument, data)
    if isinstance(dataset, Arrays | Source):
        dataset = load(dataset)._replace(name=data.source)
    if data.labels == "none":
        dataset = _without_labels(dataset)
    channels = dataset.train.channels
    if data.mean is not None and len(data.mean) != channels:
        raise UserError(
            f"data.mean and data.std have {len(data.mean)} numbers, but the images of "
            f"'{data.source}' have {channels} channels. Give one number per channel."
        )
    return dataset


def _without_labels(dataset: Dataset) -> Dataset:
    def strip(split: Any) -> Any:
        if isinstance(split, Split):
            return split._replace(labels=None)
        return split and dataclasses.replace(split, labeled=False)

    return dataset._replace(train=strip(dataset.train), test=strip(dataset.test), classes=())
