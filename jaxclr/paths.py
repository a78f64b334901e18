"""Paths as users give them: local ones, and URLs of buckets (gs://, s3://)."""

import functools
import logging
import os
import pathlib
import re
from typing import TYPE_CHECKING, TypeAlias

from jaxclr.errors import UserError, optional

if TYPE_CHECKING:
    from etils import epath
    from typing_extensions import TypeIs

    Path: TypeAlias = pathlib.Path | epath.Path
else:
    Path = pathlib.Path  # etils is imported for URLs only

_CLIENTS = {"gs": "gcsfs", "s3": "s3fs"}


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ~ or ~USER replaced by a home folder, if there is one.

    Returns:
      A `pathlib.Path`; an `etils.epath.Path` for a URL of a bucket, gs:// or s3://. Its scheme may
      have one slash: `pathlib.Path("gs://bucket")` is "gs:/bucket".

    Raises:
      UserError: a URL has another scheme, does not name a bucket, or needs an extra that is not
        installed.
    """
    text = os.fspath(path)
    if found := re.match(r"(gs|s3):/{1,2}(?!/)", text):
        return _in_bucket(found[1], text[found.end() :])
    if found := re.match(r"([A-Za-z][\w+.-]*)://", text):
        raise UserError(
            f"{text}: {found[1]}:// is not supported; give a local path, or one of gs:// or s3://."
        )
    return pathlib.Path(os.path.expanduser(path))


def in_bucket(path: str | os.PathLike[str]) -> "TypeIs[epath.Path]":
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith(("gs://", "s3://"))


def resolved(path: Path) -> Path:
    """The absolute path without links; a URL as it is."""
    return path if in_bucket(path) else path.resolve()


def cache_folder() -> pathlib.Path:
    """This library's cache folder: JAXCLR_CACHE, or jaxclr in XDG_CACHE_HOME (default ~/.cache)."""
    if given := os.environ.get("JAXCLR_CACHE"):
        return pathlib.Path(os.path.expanduser(given))
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "jaxclr"


def replace_file(path: pathlib.Path, content: bytes) -> None:
    """Writes a temporary file and renames it, so that no partial file is ever seen."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)  # it might be a link to another file
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _in_bucket(scheme: str, place: str) -> Path:
    if not place:
        raise UserError(f"{scheme}:// does not name a bucket; give {scheme}://BUCKET/FOLDER.")
    # Without it, gcsfs asks for the kind of a bucket before every request, and warns if it may not.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    optional(_CLIENTS[scheme])
    _configure()
    return optional("etils.epath").Path(f"{scheme}://{place}")


@functools.cache
def _configure() -> None:
    # epath prefers TensorFlow's client where TensorFlow is installed.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # It logs what it raises, with a traceback.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Cached listings would hide what other processes and TensorStore write.
    conf = optional("fsspec").config.conf
    for scheme in ("gcs", "s3"):
        conf.setdefault(scheme, {})["use_listings_cache"] = False
    # By default 25 attempts of 60 seconds, where nothing answers.
    conf["s3"].setdefault("config_kwargs", {"connect_timeout": 10})
