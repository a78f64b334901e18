"""Image files of every kind, and what each becomes: the table of docs/images.md.

python tests/odd_files.py    # prints the table
"""

import os
import pathlib
import socket
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxclr.data import Data
from jaxclr.data.image_folder import _encoded
from jaxclr.data.images import decode
from jaxclr.data.pixels import Unreadable

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)  # height 4, width 6
GRAY = RGB[..., :1]
ALPHA = np.where(np.arange(24).reshape(4, 6, 1) % 3, 255, 0).astype(np.uint8)  # some transparent
WIDE = np.uint16(RGB) * 257  # the same in 16 bits
TWELVE = np.uint16(RGB) * 16  # in the lower 12 of 16 bits
FLAT = np.full((16, 24, 3), (200, 100, 50), np.uint8)  # survives JPEG


class Odd(NamedTuple):
    """A file.

    Attributes:
      name: of the file.
      kind: what it is, for people.
      write: writes it to a path.
      pixels: what it is read as, uint8 [H, W, C], with `options` if it is refused without them;
        None if it cannot be read.
      options: fields of Data with which it is read, or read otherwise.
      atol: how far its pixels may differ.
    """

    name: str
    kind: str
    write: Callable[[str], Any]
    pixels: np.ndarray | None
    options: Mapping[str, Any] = MappingProxyType({})
    atol: int = 0


def image(array: np.ndarray, mode: str | None = None) -> Image.Image:
    made = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    return made if mode is None else made.convert(mode)


def saved(array: np.ndarray, mode: str | None = None, **options: Any) -> Callable[[str], Any]:
    return lambda path: image(array, mode).save(path, **options)


def turned(array: np.ndarray) -> Callable[[str], Any]:
    """The array, stored a quarter turn to the left, with the EXIF tag that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return lambda path: image(np.rot90(array).copy()).save(path, exif=exif, quality=95)


def several(array: np.ndarray, **options: Any) -> Callable[[str], Any]:
    """Two pages or frames, of which the first one is the array."""
    more = [image(255 - array)]
    return lambda path: image(array).save(path, save_all=True, append_images=more, **options)


def png(array: np.ndarray, size: tuple[int, int] | None = None) -> Callable[[str], Any]:
    """A PNG of 16-bit colors, which Pillow cannot write; or of another size than its pixels."""

    def write(path: str) -> None:
        height, width = array.shape[:2]
        chunk = lambda kind, body: (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
        depth = 8 * array.dtype.itemsize
        head = struct.pack(">IIBBBBB", *(size or (width, height)), depth, 2, 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(f">u{depth // 8}").tobytes() for row in array)
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        pathlib.Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + body)

    return write


def infrared(path: str) -> None:
    """RGB and a fourth band, which the file says is no alpha channel."""
    Image.frombytes("RGBX", (6, 4), RGBA.tobytes()).save(path)


def fourth(path: str) -> None:
    """The same, in a file that does not say what its fourth band is."""
    saved(RGBA)(path)
    data = pathlib.Path(path).read_bytes()
    assert data.count(b"\x52\x01\x03\x00") == 1  # the tag ExtraSamples, of type SHORT
    content(data.replace(b"\x52\x01\x03\x00", b"\xe8\xfd\x03\x00"))(path)


def content(data: bytes) -> Callable[[str], Any]:
    return lambda path: pathlib.Path(path).write_bytes(data)


def truncated(path: str) -> None:
    saved(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8))(path)
    data = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(data[: len(data) // 2])


def listening(path: str) -> None:
    folder, name = os.path.split(path)
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
    finally:
        os.chdir(here)


def over(array: np.ndarray, background: int = 255) -> np.ndarray:
    return np.where(ALPHA == 255, array, np.uint8(background))


def to_rgb(array: np.ndarray) -> np.ndarray:
    return np.repeat(array, 3, -1)


RGBA = np.concatenate([RGB, ALPHA], -1)
GRAY_ALPHA = np.concatenate([GRAY, ALPHA], -1)
BITS = np.where(GRAY > 127, 255, 0).astype(np.uint8)
MAGENTA = np.where(ALPHA == 255, RGB // 2, np.uint8([255, 0, 255]))
PALETTE = np.asarray(image(RGB, "P").convert("RGB"))
CMYK = np.asarray(image(FLAT, "CMYK").convert("RGB"))
FIRST = {"pages": "first"}

FILES = (
    Odd("rgb.png", "RGB, 8 bits", saved(RGB), RGB),
    Odd("rgb.jpg", "RGB, 8 bits", saved(FLAT, quality=95), FLAT, atol=3),
    Odd("rgb.bmp", "RGB, 8 bits", saved(RGB), RGB),
    Odd("rgb.webp", "RGB, 8 bits", saved(RGB, lossless=True), RGB),
    Odd("rgb.ppm", "RGB, 8 bits", saved(RGB), RGB),
    Odd("rgb.tif", "RGB, 8 bits", saved(RGB), RGB),
    Odd("gray.png", "Gray, 8 bits", saved(GRAY), GRAY),
    Odd("gray.jpg", "Gray, 8 bits", saved(FLAT[..., :1], quality=95), FLAT[..., :1], atol=3),
    Odd("gray.pgm", "Gray, 8 bits", saved(GRAY), GRAY),
    Odd("bits.png", "1 bit", saved(BITS, "1"), BITS),
    Odd("bits.pbm", "1 bit", saved(BITS, "1"), BITS),
    Odd("palette.png", "Palette", saved(RGB, "P"), PALETTE),
    Odd("palette.gif", "Palette", saved(RGB, "P"), PALETTE),
    Odd("palette.bmp", "Palette", saved(RGB, "P"), PALETTE),
    Odd(
        "transparent-palette.png",
        "Palette with a transparent color",
        lambda path: image(GRAY, "P").save(path, transparency=int(GRAY[0, 0, 0])),
        to_rgb(np.where(GRAY[0, 0, 0] == GRAY, 255, GRAY).astype(np.uint8)),
    ),
    Odd("alpha.png", "RGB and alpha", saved(RGBA), over(RGB)),
    Odd("alpha-0.png", "RGB and alpha", saved(RGBA), over(RGB, 0), {"background": 0}),
    Odd("alpha.webp", "RGB and alpha", saved(RGBA, lossless=True, exact=True), over(RGB)),
    Odd("alpha.tif", "RGB and alpha", saved(RGBA), over(RGB)),
    Odd(
        "opaque.png",
        "RGB and an alpha channel without transparent pixels",
        saved(np.concatenate([RGB, np.full_like(GRAY, 255)], -1)),
        RGB,
    ),
    Odd("gray-alpha.png", "Gray and alpha", saved(GRAY_ALPHA), over(GRAY)),
    Odd(
        "key.png",
        "RGB with a transparent color",
        lambda path: image(MAGENTA).save(path, transparency=(255, 0, 255)),
        over(RGB // 2),
    ),
    Odd(
        "cmyk.jpg", "CMYK, without its color profile", saved(FLAT, "CMYK", quality=95), CMYK, {}, 3
    ),
    Odd("cmyk.tif", "CMYK, without its color profile", saved(FLAT, "CMYK"), CMYK),
    Odd("deep.png", "Gray, 16 bits, all in use", saved(WIDE[..., :1]), GRAY),
    Odd("deep.tif", "Gray, 16 bits, all in use", saved(WIDE[..., :1]), GRAY),
    Odd("deep.pgm", "Gray, 16 bits, all in use", saved(WIDE[..., :1]), GRAY),
    Odd(
        "twelve.png",
        "Gray, 12 of 16 bits in use",
        saved(TWELVE[..., :1]),
        np.round(TWELVE[..., :1] * (255 / 4095)).astype(np.uint8),
        {"bits": 12},
    ),
    Odd(
        "twelve-16.png",
        "Gray, 12 of 16 bits in use",
        saved(TWELVE[..., :1]),
        GRAY // 16,
        {"bits": 16},
        1,
    ),
    Odd("deep-rgb.png", "RGB, 16 bits, all in use: the upper 8 are read", png(WIDE), RGB),
    Odd("twelve-rgb.png", "RGB, 12 of 16 bits in use", png(TWELVE), None, {"bits": 12}),
    Odd("photo.jpg", "EXIF rotation, applied", turned(FLAT), FLAT, {}, 3),
    Odd("photo.png", "EXIF rotation, applied", turned(RGB), RGB),
    Odd(
        "photo-ignored.png",
        "EXIF rotation, applied",
        turned(RGB),
        np.rot90(RGB),
        {"exif": "ignore"},
    ),
    Odd("photo.webp", "EXIF rotation, applied", turned(FLAT), FLAT, {}, 4),
    Odd("photo.tif", "EXIF rotation, applied", turned(RGB), RGB),
    Odd(
        "pair.jpg",
        "A second picture in a JPEG (MPO), left out",
        several(FLAT, format="MPO"),
        FLAT,
        {},
        4,
    ),
    Odd("frames.png", "Several frames or pages", several(RGB), RGB, FIRST),
    Odd("frames.gif", "Several frames or pages", several(GRAY), to_rgb(GRAY), FIRST),
    Odd("frames.webp", "Several frames or pages", several(RGB, lossless=True), RGB, FIRST),
    Odd("pages.tif", "Several frames or pages", several(RGB), RGB, FIRST),
    Odd("infrared.tif", "RGB and a band that is not alpha", infrared, RGB, {"channels": "rgb"}),
    Odd("fourth.tif", "RGB and a band that is not alpha", fourth, RGB, {"channels": "rgb"}),
    Odd("lab.tif", "L*a*b*", lambda path: Image.new("LAB", (6, 4)).save(path), None),
    Odd("float.tif", "float32", saved(np.float32(GRAY)), None),
    Odd("int.tif", "int32", saved(np.int32(GRAY)), None),
    Odd("dot.png", "1 x 1 pixel", saved(RGB[:1, :1]), RGB[:1, :1]),
    Odd("huge.png", "Larger than data.max_megapixels", png(RGB, (20_000, 20_000)), None),
    Odd("cut.png", "Truncated", truncated, None),
    Odd("empty.png", "Not an image", content(b""), None),
    Odd("text.png", "Not an image", content(b"not an image"), None),
)
# What stands in a folder and is no file; it is never opened.
NO_FILES = (
    ("pipe.png", lambda path: os.mkfifo(path), "is a FIFO, not an image"),
    ("talk.png", listening, "is a socket, not an image"),
    ("gone.png", lambda path: os.symlink("nowhere.png", path), "is a link to 'nowhere.png', which"),
    ("self.png", lambda path: os.symlink("self.png", path), "cannot be read (Too many levels of"),
)


def outcome(path: str, options: Mapping[str, Any]) -> str:
    """What a file becomes, in the words of the table."""
    try:
        pixels, composed = decode(_encoded(path), Data("folder:x", **options))
    except Unreadable as error:
        return f"refused: {error.args[1]}"
    return ("gray" if pixels.shape[-1] == 1 else "RGB") + ", on the background" * composed


def table(folder: pathlib.Path) -> str:
    """The table of docs/images.md; files are written into the folder."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for odd in FILES:
        path = str(folder / odd.name)
        odd.write(path)
        words = [f"--data.{key.replace('_', '-')} {value}" for key, value in odd.options.items()]
        other = f"`{' '.join(words)}`: {outcome(path, odd.options)}" if words else ""
        formats = rows.setdefault((odd.kind, outcome(path, {}), other), [])
        suffix = odd.name.rpartition(".")[2]
        name = {"jpg": "JPEG", "tif": "TIFF", "webp": "WebP"}.get(suffix, suffix.upper())
        formats += [name] * (name not in formats)
    lines = ["| file | formats tried | read as | with an option |", "|---|---|---|---|"]
    for (kind, plain, other), formats in rows.items():
        lines.append(
            f"| {kind} | {', '.join(formats)} | {plain} | {other} |".replace("|  |", "| |")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        print(table(pathlib.Path(made)))
