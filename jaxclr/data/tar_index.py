"""The samples of a tar file as webdataset writes them: where each image is, and its label.

Consecutive members with the same name up to the first dot of the file name are one sample.
"""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from jaxclr.errors import UserError, reason
from jaxclr.paths import expanded
from jaxclr.text import displayable

IMAGES = ("jpg", "jpeg", "png", "ppm", "pgm", "pbm", "bmp", "webp", "tif", "tiff", "gif")
LABEL_KEYS = ("label", "cls", "class")  # of a .json member
LONGEST_LABEL = 200  # bytes
MOST_BYTES = 2**20  # of a .json member

Fields = dict[str, tuple[str, int, int]]  # by extension: name of the member, offset and size


def tar_index(path: str, labels: str) -> dict[str, np.ndarray]:
    """The index of one tar file.

    Args:
      path: of the file.
      labels: as in `Data`: auto, none, the extension of a member, or a key of a .json member.

    Returns:
      Arrays with one row for each sample: `names` of the images' members (bytes; the key where a
      sample has no image), `offsets` and `sizes` of their bytes (int64; offset -1 without an
      image), `labels` (bytes) and whether there is a label, `labeled` (bool). And `extensions` of
      all members (bytes).

    Raises:
      UserError: the file is damaged or not an uncompressed tar file, a sample has several images,
        or a label cannot be read.
    """
    rows: list[tuple[str, int, int, str | None]] = []
    extensions: set[str] = set()
    try:
        with expanded(path).open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for key, fields in _samples(tar):
                extensions.update(fields)
                name, offset, size = _image(path, key, fields)
                rows.append((name, offset, size, _label(path, file, fields, labels)))
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"'{displayable(path)}' cannot be read as an uncompressed tar file ({reason(error)}). "
            "Write or copy it again."
        ) from error
    names, offsets, sizes, texts = zip(*rows, strict=True) if rows else ((), (), (), ())
    encoded = [b"" if text is None else text.encode(errors="surrogateescape") for text in texts]
    return {
        "names": np.array([os.fsencode(name) for name in names], np.bytes_),
        "offsets": np.array(offsets, np.int64),
        "sizes": np.array(sizes, np.int64),
        "labels": np.array(encoded, np.bytes_),
        "labeled": np.array([text is not None for text in texts], bool),
        "extensions": np.array([os.fsencode(name) for name in sorted(extensions)], np.bytes_),
    }


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, Fields]]:
    """Key and members of each sample; names without a dot and webdataset's metadata are ignored."""
    last, fields = None, Fields()
    for member in tar:
        found = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]*)", member.name, re.DOTALL)
        if not member.isreg() or found is None or re.match(r"__[^/]*__($|/)", member.name):
            continue
        key, extension = found[1], found[2].lower()
        if key != last or extension in fields:
            if last is not None:
                yield last, fields
            last, fields = key, Fields()
        fields[extension] = member.name, member.offset_data, member.size
    if last is not None:
        yield last, fields


def _image(path: str, key: str, fields: Fields) -> tuple[str, int, int]:
    """The member of the image: of several, the one whose extension has no dot."""
    found = [name for name in fields if name.rpartition(".")[2] in IMAGES]
    plain = [name for name in found if "." not in name]
    if len(found) == 1 or len(plain) == 1:
        return fields[(plain or found)[0]]
    if found:
        raise UserError(
            f"Sample '{displayable(key)}' of '{displayable(path)}' has several images "
            f"({', '.join(map(displayable, found))}); write shards with one image a sample."
        )
    return key, -1, 0


def _label(path: str, file: IO[bytes], fields: Fields, labels: str) -> str | None:
    """The label of a sample as text; None without a label."""
    if labels == "none":
        return None
    extension = "cls" if labels == "auto" else labels.lower()
    keys = LABEL_KEYS if labels == "auto" else (labels,)
    if extension not in fields:
        extension = "json"
    if extension not in fields:
        return None
    name, offset, size = fields[extension]
    try:
        if size > MOST_BYTES:
            raise ValueError(f"it has {size} bytes")
        file.seek(offset)
        text = file.read(size).decode()
        value = json.loads(text) if extension == "json" else text.strip()
        if isinstance(value, dict):
            value = next((value[key] for key in keys if value.get(key) is not None), None)
        if isinstance(value, bool | int):
            return str(int(value))
        if value is None or (labels == "auto" and not isinstance(value, str)):
            return None
        if not isinstance(value, str) or len(value.encode()) > LONGEST_LABEL:
            raise ValueError(f"it is not an integer or a name of at most {LONGEST_LABEL} bytes")
        return value
    except ValueError as error:  # also of characters and of JSON
        raise UserError(
            f"'{displayable(name)}' of '{displayable(path)}' cannot be read as a label "
            f"({reason(error)}). Repair it, or set --data.labels."
        ) from error
