"""CIFAR-10 as an .npz file, for machines without TensorFlow Datasets."""

import io
import itertools
import pathlib

import numpy as np
from PIL import Image

from jaxclr.data import Data, load
from jaxclr.data.pixels import Encoded

SPLITS = ("train", "test")


def pack(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the encoded images of a cifar10 that TFDS has prepared to one small file."""
    dataset = load(Data("tfds:cifar10", dir=str(folder), streaming="always"))
    arrays = {}
    for split in SPLITS:
        stream = getattr(dataset, split)
        files, labels = zip(*stream.stored.read(stream.rows.tolist()), strict=True)
        contents = [_content(file) for file in files]
        arrays[f"{split}_bytes"] = np.frombuffer(b"".join(contents), np.uint8)
        arrays[f"{split}_ends"] = np.cumsum([len(content) for content in contents])
        arrays[f"{split}_labels"] = np.array(labels, np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def unpack(packed: pathlib.Path, path: pathlib.Path) -> None:
    """Decodes a file of `pack` to an .npz file that `Data` reads.

    Its `pixels` name the format in which the images were stored.
    """
    arrays, kinds = {}, set()
    with np.load(packed) as stored:
        for split in SPLITS:
            contents, ends = stored[f"{split}_bytes"].tobytes(), stored[f"{split}_ends"].tolist()
            parts = itertools.pairwise([0, *ends])
            images = [Image.open(io.BytesIO(contents[first:end])) for first, end in parts]
            kinds.update(image.format for image in images)
            arrays[f"{split}_images"] = np.stack([np.asarray(image) for image in images])
            arrays[f"{split}_labels"] = stored[f"{split}_labels"]
    np.savez(path, **arrays, pixels=np.array(" ".join(sorted(kinds))))


def pixels(path: pathlib.Path) -> str:
    """How the images of a file were stored before they were written to it."""
    with np.load(path) as arrays:
        return str(arrays["pixels"]) if "pixels" in arrays else "not known"


def _content(file: Encoded) -> bytes:
    with file.open() as stream:
        return stream.read()
