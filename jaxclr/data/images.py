"""Decoding of image files into one uint8 array, with channel conversion and resizing."""

import concurrent.futures
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxclr.data.pixels import Decoded, Encoded, Kind, Unreadable, decoded, kind_of, open_image
from jaxclr.data.source_options import Data
from jaxclr.errors import UserError
from jaxclr.text import displayable

# Smaller files are decoded in one thread, where Python's overhead outweighs decoding: 50,000 files
# of 32x32 take 5.3 s in one thread and 5.4 to 7.3 s in several.
THREADED_PIXELS = 128 * 128
CHUNK = 64


MOST_NAMED = 8  # unreadable files in an error; notes name MOST_LISTED
MOST_LISTED = 50
EXTREME = 8  # ratio of sides above which an image is cropped before it is resized


class Images(NamedTuple):
    """Decoded files.

    Attributes:
      pixels: uint8 [n, H, W, C].
      rows: their indices among the files, [n].
      left_out: the files that cannot be read.
      composed: how many have transparent pixels.
    """

    pixels: np.ndarray
    rows: np.ndarray
    left_out: tuple[Unreadable, ...]
    composed: int


def shape_of(kind: Kind, data: Data) -> tuple[int, int, int]:
    """Height, width and channels of an image after decoding."""
    width, height = kind.size if data.image_size is None else (data.image_size,) * 2
    return height, width, kind.channels


def decode(file: Encoded, data: Data) -> Decoded[np.ndarray]:
    """One file as uint8 [H, W, C].

    Raises:
      Unreadable: the file is not an image, is damaged, or cannot be read as `data` says.
    """
    size = data.image_size
    with open_image(file) as image:
        # Twice the target keeps a reduced JPEG sharp.
        least = None if size is None else (2 * size, 2 * size)
        pixels, composed = decoded(image, file, kind_of(image, file, data), data, least)
    if size is not None:
        pixels = resize_and_crop(pixels, size)
    return Decoded(to_array(pixels), composed)


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels as uint8 [H, W, C]."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the short side to `size` (bicubic, antialiased) and crops the center square."""
    short = min(image.size)
    if max(image.size) > EXTREME * short:  # or the resized image would be as long as wide
        image = _center(image, *(min(side, EXTREME // 2 * short) for side in image.size))
    if short != size:
        width, height = (max(size, round(side * size / short)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return _center(image, size, size)


def _center(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def first_shape(files: Iterable[Encoded], data: Data) -> tuple[str, tuple[int, int, int], int]:
    """Name, decoded shape and stored pixel count of the first readable image.

    Raises:
      UserError: all files are unreadable, or the first ones are and data.skip_corrupt is off.
    """
    errors: list[Unreadable] = []
    for file in files:
        try:
            with open_image(file) as image:
                shape = shape_of(kind_of(image, file, data), data)
                return file.name, shape, image.width * image.height
        except Unreadable as error:
            errors.append(error)
            if len(errors) >= MOST_NAMED and not data.skip_corrupt:
                break
    if errors and not data.skip_corrupt:
        raise unreadable(errors)
    raise UserError(f"'{displayable(data.source)}' has no file that can be read as an image.")


def decode_all(
    chunks: Iterable[Sequence[Encoded]], count: int, data: Data, like: tuple[str, tuple, int]
) -> Images:
    """Decodes files into one array, in order.

    Args:
      chunks: the files, in chunks.
      count: number of files.
      data: for its image_size, channels and skip_corrupt.
      like: result of `first_shape`; all images must have this shape.

    Raises:
      UserError: files are unreadable (unless skip_corrupt), or differ in size or channels.
    """
    first, shape, pixels = like
    images = np.empty((count, *shape), np.uint8)
    kept: list[int] = []
    left_out: list[Unreadable] = []
    composed = 0

    def decode_some(start: int, files: Sequence[Encoded]) -> list[bool | Unreadable]:
        outcomes: list[bool | Unreadable] = []
        for row, file in enumerate(files, start):
            try:
                image, has_alpha = decode(file, data)
            except Unreadable as error:
                outcomes.append(error)
                continue
            if image.shape != shape:
                raise _misfit(first, shape, file.name, image.shape)
            images[row] = image
            outcomes.append(has_alpha)
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
        for start, _, outcomes in in_order(pool, decode_some, jobs(), ahead=4 * workers):
            for row, outcome in enumerate(outcomes, start):
                if isinstance(outcome, Unreadable):
                    left_out.append(outcome)
                else:
                    kept.append(row)
                    composed += outcome
            if len(left_out) >= MOST_NAMED and not data.skip_corrupt:
                break
    if left_out and not data.skip_corrupt:
        raise unreadable(left_out)
    if not kept:
        raise UserError(
            f"'{displayable(data.source)}' has a split without any file that can be read as an "
            "image."
        )
    if left_out:  # Close the gaps in place; a copy would double the memory.
        for target, row in enumerate(kept):
            images[target] = images[row]
    rows = np.asarray(kept, np.int64)
    return Images(images[: len(kept)], rows, tuple(left_out), composed)


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
        f"'{displayable(data.source)}' has {have} channels, which cannot be turned into "
        f"{data.channels}. Leave --data.channels out."
    )


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
            f"'{displayable(gray)}' is grayscale and '{displayable(color)}' is RGB. "
            "Set --data.channels rgb (or gray) to convert all images."
        )
    sides = [f"{height}x{width}" for height, width, _ in (shape, other)]
    return UserError(
        f"'{displayable(first)}' is {sides[0]} and '{displayable(name)}' is {sides[1]} (height x "
        "width). Set --data.image-size to resize all images, or --data.streaming always."
    )


def unreadable(errors: Sequence[Unreadable]) -> UserError:
    """The error for unreadable files when data.skip_corrupt is off."""
    remedies = "; ".join(dict.fromkeys(error.remedy for error in errors[:MOST_NAMED]))
    if len(errors) == 1:
        return UserError(f"{errors[0]}. {remedies}, or set --data.skip-corrupt to leave it out.")
    remedies = remedies.replace("repair it", "repair them")
    return UserError(
        f"{len(errors)} files cannot be read: {_listed(errors, MOST_NAMED)}. {remedies}, or set "
        "--data.skip-corrupt to leave them out."
    )


def notes_on(left_out: Sequence[Unreadable], composed: int, data: Data) -> tuple[str, ...]:
    """Sentences for the user on files left out and on transparent ones."""
    notes = []
    if left_out:
        notes.append(f"{len(left_out)} file(s) left out: {_listed(left_out, MOST_LISTED)}.")
    if composed:
        notes.append(
            f"{composed} image(s) have transparent pixels, which are composed on a background of "
            f"gray {data.background} (data.background)."
        )
    return tuple(notes)


def _listed(errors: Sequence[Unreadable], most: int) -> str:
    rest = len(errors) - most
    return "; ".join(map(str, errors[:most])) + (f"; and {rest} more" if rest > 0 else "")
