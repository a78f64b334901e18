"""Named data sources and their options, the part of a configuration that is about data."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Interval

from jaxclr.errors import UserError, unknown
from jaxclr.fields import check_fields
from jaxclr.paths import in_bucket

if TYPE_CHECKING:
    from jaxclr.data.arrays import Arrays
    from jaxclr.data.dataset import Dataset
    from jaxclr.data.random_access import Source

Channels = Literal["as_is", "rgb", "gray"]
Layout = Literal["auto", "NHWC", "NCHW"]
Streaming = Literal["auto", "never", "always"]
Load = Callable[[str, "Data"], "Dataset | Arrays | Source"]
_PATHS = ("PATH", "PATTERN", "NAME_OR_PATH")


class NamedSource(NamedTuple):
    """A source that `Data.source` can name.

    Attributes:
      load: a function of the text after the colon ("" without a colon) and the `Data`; or the
        module of jaxclr.data that defines it as `load`, imported when it is needed.
      argument: what the text after the colon is, for messages; None: no text is allowed.
      optional: whether the text may be left out.
      files: whether the source has image files, which data.image_size resizes; others have arrays.
    """

    load: str | Load
    argument: str | None = None
    optional: bool = False
    files: bool = False


SOURCES: dict[str, NamedSource] = {
    "digits": NamedSource("digits"),
    "folder": NamedSource("image_folder", "PATH", files=True),
    "hf": NamedSource("hf", "NAME_OR_PATH", files=True),
    "npz": NamedSource("npz", "PATH"),
    "tfds": NamedSource("tfds", "NAME", files=True),
    "wds": NamedSource("wds", "PATTERN", files=True),
}
"""The sources by the names that `--data.source` takes."""


@dataclasses.dataclass(frozen=True)
class Data:
    """A named data set and how to read it: in memory, or streamed from its files.

    Args:
      source: digits, folder:PATH, npz:PATH, tfds:NAME, wds:PATTERN or hf:NAME_OR_PATH. Also
        tfds:NAME/CONFIG:VERSION; tar shards of webdataset: wds:train-{000..012}.tar, wds:*.tar or
        wds:FOLDER; a data set of Hugging Face on disk: hf:FOLDER, or hf:NAME[:CONFIG] in its cache.
        PATH may be the URL of a file or folder in a bucket: gs://BUCKET/... or s3://BUCKET/...
      dir: Folder or URL of the prepared TFDS data sets; None: TFDS's default,
        ~/tensorflow_datasets.
      train_split: Split to train on: a sub-folder, a pattern of tar shards, or a split of a data
        set of TFDS or Hugging Face such as train+unlabelled or train[:10%]; None: train.
      test_split: Split to evaluate on, likewise; None: the first labeled one of test, val, dev,
        eval and their longer names.
      labels: auto: those that the source has; none: no labels are read; or the name of a feature of
        TFDS, of one integer for each image, of a column of Hugging Face, or of a member of tar
        shards (its extension, or a key of its json). The label -1 means no label.
      image_size: Resize the short side to this many pixels, then crop the center; None: do not
        resize. Streamed images are resized for evaluation only, by default to the size of the first
        view.
      channels: Convert all images to RGB or grayscale; as_is: all images must have the same number
        of channels.
      layout: Order of the axes of arrays [N, ...]; auto: NHWC, and arrays that look like NCHW are
        refused.
      exif: Whether the EXIF rotation of photos is applied.
      background: Gray level, 0 to 255, on which transparent images are composed.
      bits: Bits in use of the pixels of 16-bit files, which are scaled so that 2**bits - 1 becomes
        255; None: 16, and images that use fewer are refused.
      pages: one: files of several pages or frames are refused; first: their first page is read.
      max_megapixels: Files that would be decoded to more than so many million pixels are refused.
        JPEGs are decoded at a fraction of their size if that suffices.
      test_fraction: Share held out for testing if the source has no test split; 0: no test split.
      skip_corrupt: Leave out and list files that cannot be read as images, instead of stopping. A
        stream replaces each of them by its next image.
      mean: Mean per channel for normalization, pixels scaled to [0, 1]; None: computed from the
        training images, or from a sample of them if they are streamed.
      std: Standard deviation per channel, likewise.
      memory_limit: Largest size in GiB of the decoded uint8 images of all splits in memory.
      streaming: Whether image files (all sources but digits and npz) stay where they are and are
        decoded and cropped on demand; auto: if they exceed memory_limit. Streamed images are
        cropped on the host. Crop boxes are the same as on a device, but pixels are resampled in 8
        bits, so that a streamed run differs slightly from the same run in memory.
      workers: Number of processes that decode and crop a stream; 0: threads of this process; None:
        one process per core. Results do not depend on it.

    Raises:
      UserError: the source is unknown, or a value is invalid.
    """

    source: str = "digits"
    dir: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    labels: str = "auto"
    image_size: Annotated[int, Ge(1)] | None = None
    channels: Channels = "as_is"
    layout: Layout = "auto"
    exif: Literal["apply", "ignore"] = "apply"
    background: Annotated[int, Interval(ge=0, le=255)] = 255
    bits: Annotated[int, Interval(ge=8, le=16)] | None = None
    pages: Literal["one", "first"] = "one"
    max_megapixels: Annotated[float, Gt(0)] = 100.0
    test_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    skip_corrupt: bool = False
    mean: tuple[Annotated[float, Interval(ge=0, le=1)], ...] | None = None
    std: tuple[Annotated[float, Interval(gt=0, le=1)], ...] | None = None
    memory_limit: Annotated[float, Gt(0)] = 8.0
    streaming: Streaming = "auto"
    workers: Annotated[int, Ge(0)] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "data")
        name, colon, text = self.source.partition(":")
        if name not in SOURCES:
            raise unknown("data source", name, SOURCES)
        _, argument, optional, _ = SOURCES[name]
        if argument is None and colon:
            raise UserError(f"Source '{name}' takes nothing after its name, got '{self.source}'.")
        if argument is not None and not optional and not text:
            raise UserError(f"Source '{name}' needs '{name}:{argument}', got '{self.source}'.")
        if self.labels not in ("auto", "none") and name in ("digits", "folder", "npz"):
            raise UserError(f"data.labels must be 'auto' or 'none' here, got '{self.labels}'.")
        for split in ("train_split", "test_split"):
            if getattr(self, split) is not None and name in ("digits", "npz"):
                raise UserError(f"Source '{name}' has no splits to choose; leave data.{split} out.")
        if (self.mean is None) != (self.std is None):
            given, missing = ("std", "mean") if self.mean is None else ("mean", "std")
            raise UserError(f"data.{given} is set without data.{missing}; set both or neither.")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise UserError(
                "data.mean and data.std need one number per channel each, got "
                f"{len(self.mean)} and {len(self.std)}."
            )

    @property
    def has_files(self) -> bool:
        """Whether the source has image files, which image_size resizes; others have arrays."""
        return SOURCES[self.source.partition(":")[0]].files


def absolute(data: Data) -> Data:
    """The same data with absolute paths: that of a folder or file, and `dir`. URLs stay."""
    full = lambda path: path if in_bucket(path) else os.path.abspath(os.path.expanduser(path))
    name, _, text = data.source.partition(":")
    argument = SOURCES[name].argument
    # A name of Hugging Face is a path if there is such a file.
    is_path = argument in _PATHS and (argument != _PATHS[-1] or os.path.exists(full(text)))
    source = f"{name}:{full(text)}" if is_path else data.source
    return dataclasses.replace(data, source=source, dir=data.dir and full(data.dir))


def at_their_place(data: Data, places: Any) -> Data:
    """Data whose relative paths are replaced by the absolute ones that exist.

    Args:
      data: as they were given.
      places: "source" and "dir" of `absolute`, when they were given; anything else is ignored.
    """
    now, found = absolute(data), {}
    for name in ("source", "dir"):
        given, place = getattr(data, name), isinstance(places, Mapping) and places.get(name)
        source, _, text = (given if name == "source" else "").partition(":")
        # A name of Hugging Face may have been a relative path.
        named = text and SOURCES[source].argument == _PATHS[-1] and not text.startswith(("/", "~"))
        if isinstance(place, str) and (named or given != getattr(now, name)):
            kind, _, path = place.partition(":") if name == "source" else ("", "", place)
            if kind == source and os.path.exists(fixed_part(path)):
                found[name] = place
    return dataclasses.replace(data, **found)


def fixed_part(pattern: str) -> str:
    """The innermost folder that holds all files of a pattern; a path that exists is itself."""
    if os.path.exists(pattern) or not (wild := re.search(r"[*?\[{]", pattern)):
        return pattern
    return os.path.dirname(pattern[: wild.start()])
