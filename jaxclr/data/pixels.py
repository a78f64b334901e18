"""One image file as 8-bit RGB or gray. docs/images.md lists what becomes of each kind of file."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import IO, Any, Generic, NamedTuple, TypeVar

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.Image import Transpose

from jaxclr.data.source_options import Data
from jaxclr.errors import reason
from jaxclr.text import displayable

# Classes are called directly: Image.open also warns above a number of pixels that is its own, and
# takes the pictures that phones append to a JPEG for further pages.
READERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\xff\xd8": JpegImagePlugin.JpegImageFile,
    b"\x89P": PngImagePlugin.PngImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"RI": WebPImagePlugin.WebPImageFile,
    b"GI": GifImagePlugin.GifImageFile,
    b"II": TiffImagePlugin.TiffImageFile,
    b"MM": TiffImagePlugin.TiffImageFile,
    **{b"P%d" % number: PpmImagePlugin.PpmImageFile for number in range(1, 7)},
}
GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
COLOR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr")

# How an image with each EXIF orientation is turned upright.
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
Pixels = TypeVar("Pixels", Image.Image, np.ndarray)

_ORIENTATION, _SAMPLES, _EXTRA_SAMPLES, _PHOTOMETRIC = 274, 277, 338, 262
_EXIF = frozenset({"exif", "xmp", "XML:com.adobe.xmp"})  # where Pillow finds an orientation
_COLORS = {2: 3, 5: 4, 6: 3, 8: 3}  # samples of a color by TIFF's photometric interpretation


class Unreadable(Exception):
    """A file that cannot be read as an image.

    Args:
      name: of the file.
      why: the reason, after the name in a sentence.
      remedy: what the user can do about it, apart from leaving the file out.
    """

    def __init__(self, name: str, why: str, remedy: str = "Remove or repair it"):
        super().__init__(name, why, remedy)
        self.name, self.remedy = name, remedy

    def __str__(self) -> str:
        return f"'{displayable(self.name)}' {self.args[1]}"


class Encoded(NamedTuple):
    """An image file: its name in messages, and a function that opens it."""

    name: str
    open: Callable[[], IO[bytes]]


class Kind(NamedTuple):
    """How an open image is read.

    Attributes:
      size: width and height, upright.
      channels: 1 or 3, after decoding.
      turn: what makes it upright; None if it is.
      deep: whether it has 16 bits a channel.
      alpha: whether it may have transparent pixels.
    """

    size: tuple[int, int]
    channels: int
    turn: Transpose | None
    deep: bool
    alpha: bool


class Decoded(NamedTuple, Generic[Pixels]):
    """Pixels, RGB or gray, and whether transparent ones were composed on the background."""

    pixels: Pixels
    composed: bool


@contextlib.contextmanager
def open_image(file: Encoded) -> Iterator[ImageFile.ImageFile]:
    """Opens a file and reads its header only.

    Raises:
      Unreadable: it is not an image, or its pixels have neither 8 nor 16 bits.
    """
    try:
        stream = file.open()
    except OSError as error:
        raise Unreadable(file.name, f"cannot be read ({reason(error)})") from error
    with stream:
        try:
            reader = READERS.get(stream.read(2))
            stream.seek(0)
            image = reader and reader(stream)
        except Exception as error:  # Pillow raises many kinds, even SyntaxError.
            why = f"cannot be read as an image ({reason(error)})"
            raise Unreadable(file.name, why) from error
        if image is None:
            raise Unreadable(file.name, "cannot be read as an image")
        if image.mode not in GRAY + COLOR or (image.mode == "I" and image.format != "PPM"):
            raise Unreadable(
                file.name,
                f"has pixels of mode '{image.mode}', not 8 or 16 bits of gray or RGB",
                "Convert it",
            )
        yield image


def kind_of(image: ImageFile.ImageFile, file: Encoded, data: Data) -> Kind:
    """How an open image is read.

    Raises:
      Unreadable: part of it would be dropped, and `data` does not say so.
    """
    try:
        pages = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
    except Exception as error:
        raise Unreadable(file.name, f"is damaged ({reason(error)})") from error
    if pages > 1 and data.pages == "one":
        raise Unreadable(
            file.name,
            f"has {pages} pages or frames",
            "Set --data.pages first to read the first one",
        )
    bands = _unknown_bands(image)
    if bands and data.channels == "as_is":
        raise Unreadable(
            file.name,
            f"has {bands} band(s) beside its colors that are not transparency",
            "Set --data.channels rgb (or gray) to drop them, or store all bands in an .npz file",
        )
    orientation = _orientation(image) if data.exif == "apply" else 1
    gray = data.channels == "gray" or (data.channels == "as_is" and image.mode in GRAY)
    deep = image.mode.startswith("I")
    width, height = image.size
    return Kind(
        (height, width) if orientation in SIDEWAYS else (width, height),
        1 if gray else 3,
        TURNS.get(orientation),
        deep or any(";16" in _rawmode(tile) for tile in image.tile),
        not (deep or bands) and image.has_transparency_data,
    )


def decoded(
    image: Image.Image, file: Encoded, kind: Kind, data: Data, least: tuple[int, int] | None
) -> Decoded[Image.Image]:
    """The pixels of an open file in RGB or gray, upright.

    Args:
      image: the open file.
      file: for its name.
      kind: of the image.
      data: for background, bits and max_megapixels.
      least: smallest stored width and height to which a JPEG may be reduced; None: full size.

    Raises:
      Unreadable: the file is damaged or too large, or its range is not known.
    """
    try:
        if least is not None:
            image.draft(None, least)
        _check_size(image, file, data)
        image.load()
        pixels = _to_bytes(image, file, data) if kind.deep else image
        composed = False
        if kind.alpha:
            pixels, composed = _compose(pixels, data.background)
        mode = "RGB" if kind.channels == 3 else "L"
        pixels = pixels if pixels.mode == mode else pixels.convert(mode)
        return Decoded(pixels if kind.turn is None else pixels.transpose(kind.turn), composed)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(file.name, f"is damaged ({reason(error)})") from error


def _check_size(image: Image.Image, file: Encoded, data: Data) -> None:
    size = image.width * image.height / 1e6
    if size > data.max_megapixels:
        raise Unreadable(
            file.name,
            f"has {image.width}x{image.height} pixels (width x height), more than "
            f"data.max_megapixels = {data.max_megapixels:g} allows to decode",
            f"Set --data.max-megapixels {int(size) + 1}",
        )


def _rawmode(tile: Any) -> str:
    """Pillow's name of the pixels in a file, such as "RGB;16B"."""
    arguments = tile[3]
    return arguments if isinstance(arguments, str) else str(arguments[:1])


def _unknown_bands(image: Image.Image) -> int:
    """Bands of a TIFF beside its colors and its alpha channel."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 0
    extra = tags.get(_SAMPLES, 1) - _COLORS.get(tags.get(_PHOTOMETRIC), 1)
    kinds = tags.get(_EXTRA_SAMPLES, ())
    return max(0, extra - (tuple(kinds[:1]) in ((1,), (2,))))


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 without any. Pillow itself turns a TIFF when it is decoded."""
    if image.format == "TIFF" or _EXIF.isdisjoint(image.info):
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Damaged EXIF data do not make an image unreadable.
        return 1


def _compose(image: Image.Image, background: int) -> Decoded[Image.Image]:
    """The image on a gray background, if any pixel is transparent."""
    layered = image if image.mode == "RGBA" else image.convert("RGBA")
    if layered.getchannel("A").getextrema()[0] == 255:
        return Decoded(layered, False)
    ground = Image.new("RGBA", image.size, (background,) * 3 + (255,))
    ground.alpha_composite(layered)
    return Decoded(ground, True)


def _to_bytes(image: Image.Image, file: Encoded, data: Data) -> Image.Image:
    """16-bit pixels as 8 bits: 0 to 2**bits - 1 become 0 to 255.

    Of colors Pillow reads the upper 8 bits only, which suffice if all 16 are used.
    """
    gray = image.mode.startswith("I")
    pixels = np.asarray(image)
    largest = int(pixels.max())
    used = largest.bit_length() + 8 * (not gray and largest > 0)
    if data.bits is None and 0 < used < 16:
        likely = next(bits for bits in (8, 10, 12, 14, 16) if bits >= used)
        remedy = "Set --data.bits 16 if 65535 is white" + (
            f", or {likely} if {2**likely - 1} is" * (gray and likely < 16)
        )
        raise Unreadable(
            file.name,
            f"has 16 bits a channel, of which its pixels use the lowest {used}",
            remedy if gray else f"{remedy}; convert it to 8 bits otherwise",
        )
    bits = data.bits or 16
    if used > bits:
        raise Unreadable(
            file.name,
            f"has pixels of {used} bits, and data.bits is {bits}",
            f"Set --data.bits {used} or more",
        )
    if gray:
        return Image.fromarray(_eight_bits(bits)[pixels])
    if bits < 16:
        raise Unreadable(
            file.name,
            "has 16 bits in each color, of which only the upper 8 are read",
            "Convert it to 8 bits",
        )
    return image


@functools.cache
def _eight_bits(bits: int) -> np.ndarray:
    """The 8-bit value of each value of `bits` bits, and 255 beyond them."""
    values = np.arange(65536) * (255 / (2**bits - 1))
    return np.minimum(np.round(values), 255).astype(np.uint8)
