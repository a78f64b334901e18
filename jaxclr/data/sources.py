"""The one entry: a source by its name."""

from jaxclr.data import digits, folder, npz
from jaxclr.data.config import Data
from jaxclr.data.dataset import Dataset
from jaxclr.errors import UserError


def _tfds(argument: str, data: Data) -> Dataset:
    """Reads the splits 'train' and 'test' (or 'validation') of a prepared data set; see `jaxclr.data.tfds.load`."""
    # Imported where it is wanted: it brings much, and the other sources run without it.
    from jaxclr.data import tfds

    return tfds.load(argument, data)


SOURCES = {
    "digits": digits.load,
    "folder": folder.load,
    "npz": npz.load,
    "tfds": _tfds,
}


def load(data: Data) -> Dataset:
    """Loads all images of a source into memory, as uint8, or finds them where they are to be streamed.

    Args:
      data: the source (what stands before its colon picks one of `SOURCES`), sizes and limits.

    Returns:
      Splits with images [N, H, W, C] and labels [N], or streams; class names; names of the files left out.

    Raises:
      UserError: the source does not exist, is damaged or mixed, or does not fit in memory; the
        message names the file at fault and what to do.
    """
    kind, _, argument = data.source.partition(":")
    dataset = SOURCES[kind](argument, data)
    channels = dataset.train.channels
    if data.mean is not None and len(data.mean) != channels:
        raise UserError(
            f"data.mean and data.std have {len(data.mean)} numbers, but the images of "
            f"'{data.source}' have {channels} channels. Give one number per channel."
        )
    return dataset
