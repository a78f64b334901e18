"""What to load, and how: the part of a configuration that is about data."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from jaxclr.errors import UserError, unknown
from jaxclr.fields import check_fields

Channels = Literal["as_is", "rgb", "gray"]
Streaming = Literal["auto", "never", "always"]

# What stands after the colon of a source; None if nothing does, a question mark if it may.
ARGUMENTS = {"digits": None, "folder": "PATH", "npz": "PATH", "tfds": "NAME"}


@dataclasses.dataclass(frozen=True)
class Data:
    """Images to learn from: one uint8 array per split, or streamed from their files."""

    source: str = "digits"
    """digits, tfds:NAME (or tfds:NAME/CONFIG:VERSION), folder:PATH or npz:PATH."""

    dir: str | None = None
    """Where TFDS data sets are prepared; None: TFDS's own default, ~/tensorflow_datasets."""

    image_size: Annotated[int, Ge(1)] | None = None
    """Resize the short side to this many pixels, then crop the center; None: as they are. Streamed images are trained
    on as they are, and evaluated at this size; None: at the size of the first view."""

    channels: Channels = "as_is"
    """Turn all images into RGB or grayscale; as_is: all must already have one channel count."""

    test_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Share held out for testing where a source has no test split of its own; 0: no test split."""

    skip_corrupt: bool = False
    """Leave out files that cannot be read as images, and list them, instead of stopping. In a stream the next image
    takes the place of such a one."""

    mean: tuple[Annotated[float, Interval(ge=0, le=1)], ...] | None = None
    """Mean per channel, pixels scaled to [0, 1], to normalize with; None: measured on train, or on a sample of it
    where images are streamed."""

    std: tuple[Annotated[float, Interval(gt=0, le=1)], ...] | None = None
    """Standard deviation per channel in the same units; None: measured on train."""

    memory_limit: Annotated[float, Gt(0)] = 8.0
    """Most GiB that the decoded uint8 images of all splits may take in memory."""

    streaming: Streaming = "auto"
    """Whether images of a folder or of TFDS stay in their files and are decoded and cropped as they are needed; auto:
    if they take more than memory_limit. A streamed run crops on the host, where boxes are the same but pixels are
    resampled in 8 bits: it repeats, but differs from the same run in memory."""

    workers: Annotated[int, Ge(0)] | None = None
    """Processes that decode and crop a stream; 0: threads of this process; None: as many as there are cores. No figure
    depends on it."""

    def __post_init__(self) -> None:
        check_fields(self, "data")
        kind, _, argument = self.source.partition(":")
        if kind not in ARGUMENTS:
            raise unknown("data source", kind, ARGUMENTS)
        wanted = ARGUMENTS[kind]
        optional = wanted is not None and wanted.endswith("?")
        if wanted is None and ":" in self.source:
            raise UserError(f"Source '{kind}' takes nothing after it, got '{self.source}'.")
        if wanted is not None and not optional and not argument:
            raise UserError(f"Source '{kind}' needs '{kind}:{wanted}', got '{self.source}'.")
        if (self.mean is None) != (self.std is None):
            given, missing = ("std", "mean") if self.mean is None else ("mean", "std")
            raise UserError(f"data.{given} is set without data.{missing}; set both or neither.")
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise UserError(
                    "data.mean and data.std need one number per channel each, got "
                    f"{len(self.mean)} and {len(self.std)}."
                )
