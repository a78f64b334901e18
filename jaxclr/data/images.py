"""Decoding of image files into one uint8 array, with channel conversion and resizing."""

import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxclr.data.source_options import Data
from jaxclr.errors import UserError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
GRAY = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L")
COLOR = ("RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")

# Smaller files are decoded in one thread, where Python's overhead outweighs decoding: 50,000 files
# of 32x32 take 5.3 s in one thread and 5.4 to 7.3 s in several.
THREADED_PIXELS = 128 * 128
CHUNK = 64


class Unreadable(Exception):
    """A file that cannot be read as an image; the message gives the reason."""


class Encoded(NamedTuple):
    """An image file: its name in messages, and a function that opens it."""

    name: str
    open: Callable[[], str | IO[bytes]]


def open_image(file: Encoded) -> Image.Image:
    """Opens a file and reads its header only."""
    try:
        image = Image.open(file.open(), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise Unreadable(f"'{file.name}' cannot be read as an image") from error
    except Exception as error:  # Pillow raises many kinds, even SyntaxError.
        raise Unreadable(f"'{file.name}' cannot be read as an image ({_reason(error)})") from error
    if image.mode not in GRAY + COLOR:
        image.close()
        raise Unreadable(f"'{file.name}' has pixels of mode '{image.mode}', not 8 or 16 bits")
    return image


def shape_of(image: Image.Image, data: Data) -> tuple[int, int, int]:
    """Height, width and channels of an image after decoding."""
    channels = {"rgb": 3, "gray": 1, "as_is": 1 if image.mode in GRAY else 3}[data.channels]
    size = data.image_size
    return (image.height, image.width, channels) if size is None else (size, size, channels)


def decode(file: Encoded, data: Data) -> np.ndarray:
    """One file as uint8 [H, W, C]; alpha is dropped, 16 bits become 8, EXIF rotation is ignored.

    Raises:
      Unreadable: the file is not an image, or is damaged.
    """
    size = data.image_size
    with open_image(file) as image:
        channels = shape_of(image, data)[2]
        # Twice the target keeps a reduced JPEG sharp.
        least = None if size is None else (2 * size, 2 * size)
        converted = decoded(image, file, channels, least)
    if size is not None:
        converted = resize_and_crop(converted, size)
    return to_array(converted)


def decoded(
    image: Image.Image, file: Encoded, channels: int, least: tuple[int, int] | None
) -> Image.Image:
    """The pixels of an open file in RGB or gray.

    Args:
      image: the open file.
      file: for its name.
      channels: 3 or 1.
      least: smallest width and height to which a JPEG may be reduced; None: full size.

    Raises:
      Unreadable: the file is damaged.
    """
    try:
        if least is not None:
            image.draft(None, least)
        image.load()
        bytes_ = _to_bytes(image)
        mode = "RGB" if channels == 3 else "L"
        return bytes_ if bytes_.mode == mode else bytes_.convert(mode)
    except Exception as error:
        raise Unreadable(f"'{file.name}' is damaged ({_reason(error)})") from error


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels as uint8 [H, W, C]."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the short side to `size` (bicubic, antialiased) and crops the center square."""
    short = min(image.size)
    if short != size:
        width, height = (max(size, round(side * size / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def first_shape(files: Iterable[Encoded], data: Data) -> tuple[str, tuple[int, int, int], int]:
    """Name, decoded shape and stored pixel count of the first readable image.

    Raises:
      UserError: the first file is unreadable and data.skip_corrupt is off, or all files are.
    """
    for file in files:
        try:
            with open_image(file) as image:
                return file.name, shape_of(image, data), image.width * image.height
        except Unreadable as error:
            if not data.skip_corrupt:
                raise unreadable(error) from error
    raise UserError(f"'{data.source}' has no file that can be read as an image.")


def decode_all(
    chunks: Iterable[Sequence[Encoded]], count: int, data: Data, like: tuple[str, tuple, int]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Decodes files into one array, in order.

    Args:
      chunks: the files, in chunks.
      count: number of files.
      data: for its image_size, channels and skip_corrupt.
      like: result of `first_shape`; all images must have this shape.

    Returns:
      images, uint8 [n, H, W, C]; their indices among the files, [n]; names of files left out.

    Raises:
      UserError: a file is unreadable (unless skip_corrupt), or differs in size or channels.
    """
    first, shape, pixels = like
    images = np.empty((count, *shape), np.uint8)
    kept, skipped = [], []

    def decode_some(start: int, files: Sequence[Encoded]) -> list[Unreadable | None]:
        outcomes: list[Unreadable | None] = []
        for row, file in enumerate(files, start):
            try:
                image = decode(file, data)
            except Unreadable as error:
                outcomes.append(error)
                continue
            if image.shape != shape:
                raise _misfit(first, shape, file.name, image.shape)
            images[row] = image
            outcomes.append(None)
        return outcomes

    def jobs() -> Iterator[tuple[int, Sequence[Encoded]]]:
        start = 0
        for chunk in chunks:
            for offset in range(0, len(chunk), CHUNK):
                files = chunk[offset : offset + CHUNK]
                yield start, files
                start += len(files)

    workers = min(16, os.cpu_count() or 1) if pixels >= THREADED_PIXELS else 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for start, files, outcomes in in_order(pool, decode_some, jobs(), ahead=4 * workers):
            for row, (file, error) in enumerate(zip(files, outcomes, strict=True), start):
                if error is None:
                    kept.append(row)
                elif data.skip_corrupt:
                    skipped.append(file.name)
                else:
                    raise unreadable(error)
    rows = np.asarray(kept, np.int64)
    if not kept:
        raise UserError(
            f"'{data.source}' has a split without any file that can be read as an image."
        )
    if skipped:  # Close the gaps in place; a copy would double the memory.
        for target, row in enumerate(kept):
            images[target] = images[row]
    return images[: len(kept)], rows, tuple(skipped)


def convert_channels(images: np.ndarray, data: Data) -> np.ndarray:
    """Converts images [N, H, W, C] to data.channels; gray is ITU-R 601 luma."""
    have = images.shape[-1]
    if data.channels == "as_is" or have == (3 if data.channels == "rgb" else 1):
        return images
    if data.channels == "rgb" and have == 1:
        return np.repeat(images, 3, axis=-1)
    if data.channels == "gray" and have == 3:
        gray = np.empty((*images.shape[:-1], 1), np.uint8)
        for start in range(0, len(images), 1024):  # in slices, since the product is float64
            part = images[start : start + 1024] @ np.array([0.299, 0.587, 0.114])
            gray[start : start + 1024, ..., 0] = np.round(part)
        return gray
    raise UserError(
        f"'{data.source}' has {have} channels, which cannot be turned into {data.channels}. "
        "Leave --data.channels out."
    )


def _to_bytes(image: Image.Image) -> Image.Image:
    """Converts 16-bit pixels to 8 bits, 65535 to 255; other images are returned unchanged."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))


def in_order(
    pool: concurrent.futures.Executor,
    function: Callable[..., Any],
    jobs: Iterable[tuple[Any, ...]],
    *,
    ahead: int,
) -> Iterator[tuple[Any, ...]]:
    """Yields (*job, function(*job)) in the order of the jobs, running at most `ahead` at a time."""
    pending: list[tuple[tuple[Any, ...], concurrent.futures.Future]] = []
    for job in jobs:
        pending.append((job, pool.submit(function, *job)))
        if len(pending) >= ahead:
            done, future = pending.pop(0)
            yield *done, future.result()
    for done, future in pending:
        yield *done, future.result()


def _misfit(first: str, shape: tuple, name: str, other: tuple) -> UserError:
    if shape[2] != other[2]:
        gray, color = (first, name) if shape[2] == 1 else (name, first)
        return UserError(
            f"'{gray}' is grayscale and '{color}' is RGB. "
            "Set --data.channels rgb (or gray) to convert all images."
        )
    return UserError(
        f"'{first}' is {shape[0]}x{shape[1]} and '{name}' is {other[0]}x{other[1]} "
        "(height x width). Set --data.image-size to resize all images, or --data.streaming always."
    )


def unreadable(error: Unreadable) -> UserError:
    """The error for an unreadable file when data.skip_corrupt is off."""
    return UserError(f"{error}. Remove or repair it, or set --data.skip-corrupt to leave it out.")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
