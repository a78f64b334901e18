"""The one entry: a source by its name."""

from collections.abc import Callable

from jaxclr.data import arrays, digits, image_folder, npz, random_access
from jaxclr.data.arrays import Arrays
from jaxclr.data.dataset import Dataset
from jaxclr.data.random_access import Source
from jaxclr.data.source_options import ARGUMENTS, Data
from jaxclr.errors import UserError


def _tfds(argument: str, data: Data) -> Dataset:
    """Reads the splits 'train' and 'test' (or 'validation') of a prepared data set; see `jaxclr.data.tfds.load`."""
    # Imported where it is wanted: it brings much, and the other sources run without it.
    from jaxclr.data import tfds

    return tfds.load(argument, data)


Load = Callable[[str, Data], Dataset | Arrays | Source]

SOURCES: dict[str, Load] = {
    "digits": digits.load,
    "folder": image_folder.load,
    "npz": npz.load,
    "tfds": _tfds,
}
BUILT_IN = tuple(SOURCES)


def register(name: str, load: Load) -> None:
    """Names a source of a user's own: then `Data("name:argument")` is read by `load("argument", data)`.

    Args:
      name: what stands before the colon.
      load: takes what stands after it ("" without one) and the `Data`; returns `Arrays` or a `Source`.

    Raises:
      UserError: the name is one of this library's, or holds a colon.
    """
    if name in BUILT_IN or ":" in name or not name:
        raise UserError(
            f"A source cannot be registered as '{name}': give a name without a colon that is not taken."
        )
    SOURCES[name] = load
    ARGUMENTS[name] = "ARGUMENT?"


def load(data: Data | Arrays | Source) -> Dataset:
    """Loads all examples of a source into memory, or finds them where they are to be streamed.

    Args:
      data: the source (what stands before its colon picks one of `SOURCES`), sizes and limits; or a program's own data.

    Returns:
      Splits with images [N, H, W, C] and labels [N], or streams; class names; names of the files left out.

    Raises:
      UserError: the source does not exist, is damaged or mixed, or does not fit in memory; the
        message names the file at fault and what to do.
    """
    if isinstance(data, Arrays):
        return arrays.load(data)
    if isinstance(data, Source):
        return random_access.load(data)
    kind, _, argument = data.source.partition(":")
    dataset = SOURCES[kind](argument, data)
    if isinstance(dataset, Arrays | Source):
        dataset = load(dataset)._replace(name=data.source)
    channels = dataset.train.channels
    if data.mean is not None and len(data.mean) != channels:
        raise UserError(
            f"data.mean and data.std have {len(data.mean)} numbers, but the images of "
            f"'{data.source}' have {channels} channels. Give one number per channel."
        )
    return dataset
