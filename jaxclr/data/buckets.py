"""Files and folders in buckets (gs:// and s3://), read with few requests.

Clients retry failed requests. A process has one client for each kind of bucket.
"""

import functools
import io
import threading
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

from jaxclr.buckets import bucket_of, client, reaching
from jaxclr.errors import UserError
from jaxclr.paths import expanded

PART = 2**25  # bytes of a large file that are read by one request
CONCURRENT = 8  # such requests at a time


class Entry(NamedTuple):
    """A file or folder: its URL, and a mark that changes with its content ("" for a folder)."""

    url: str
    is_folder: bool
    mark: str


def check_is(url: str, wanted: str) -> None:
    """Raises UserError unless a URL is "a file" or "a folder", as wanted."""
    try:
        info = file_system(url).info(url)
        kind = "a folder" if info["type"] == "directory" else "a file"
        if kind == wanted == "a folder":
            entries(url)  # the root of a bucket is a folder, whether or not it exists
    except Exception as error:  # clients raise many kinds
        raise failure(url, error, f"give {wanted}") from error
    if kind != wanted:
        raise UserError(f"'{url}' is {kind}; give {wanted}.")


def size_of(url: str) -> int:
    """Number of bytes of a file."""
    try:
        return file_system(url).info(url)["size"]
    except Exception as error:
        raise failure(url, error) from error


def entries(url: str) -> list[Entry]:
    """What is in a folder, in order of names; one listing.

    Raises:
      UserError: it cannot be listed.
    """
    scheme = url.partition("://")[0]
    try:
        listed = file_system(url).ls(url, detail=True, refresh=True)
    except Exception as error:
        raise failure(url, error) from error
    found = []
    for info in listed:
        name = f"{scheme}://{info['name'].rstrip('/')}"
        if name != url.rstrip("/"):  # an empty object that marks a folder
            is_folder = info["type"] == "directory"
            version = info.get("generation") or info.get("ETag") or info.get("etag")
            found.append(Entry(name, is_folder, "" if is_folder else f"{info['size']} {version}"))
    return sorted(found)


def read_file(url: str) -> io.BytesIO:
    """The content of a file, which may be large.

    Raises:
      UserError: it cannot be read.
    """
    content, size = io.BytesIO(), size_of(url)
    for first in range(0, size, CONCURRENT * PART):
        starts = range(first, min(first + CONCURRENT * PART, size), PART)
        ends = [min(start + PART, size) for start in starts]
        content.writelines(read_ranges([url] * len(starts), starts, ends))
    content.seek(0)
    return content


def read_ranges(urls: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
    """Bytes `start` to `end` of each file; fewer where it ends before. Requests are concurrent.

    Raises:
      UserError: a file cannot be read.
    """
    found = _read(urls, starts, ends) if urls else []
    for url, content in zip(urls, found, strict=True):
        if isinstance(content, Exception):
            raise failure(url, content) from content
    return found


def _read(urls: Sequence[str], starts: Sequence[Any], ends: Sequence[Any]) -> list[Any]:
    """Parts of files, or an exception for each that cannot be read."""
    return file_system(urls[0]).cat_ranges(list(urls), list(starts), list(ends))


class Batch:
    """Files that are read together when the first of them is opened.

    Args:
      urls: of the files, all in one kind of bucket.
    """

    def __init__(self, urls: Sequence[str]):
        self._urls = list(urls)
        self._lock = threading.Lock()
        self._found: dict[int, Any] | None = None

    def open(self, index: int) -> IO[bytes]:
        """A file, which is read again when it is opened again.

        Raises:
          OSError: it does not exist, or reading it is not permitted.
          UserError: it cannot be read for another reason, such as a network that is down.
        """
        with self._lock:
            if self._found is None:
                whole = [None] * len(self._urls)
                self._found = dict(enumerate(_read(self._urls, whole, whole)))
            content = self._found.pop(index, None)
        if content is None:
            return Batch([self._urls[index]]).open(0)
        if isinstance(content, Exception):
            if isinstance(content, FileNotFoundError) or _is_refused(content):
                missing = isinstance(content, FileNotFoundError)
                raise OSError("no such file" if missing else "no permission") from content
            raise failure(self._urls[index], content) from content
        return io.BytesIO(content)


def file_system(url: str) -> Any:
    """This process's client of a bucket, an fsspec file system.

    Raises:
      UserError: the scheme is unknown, or an extra is not installed.
    """
    expanded(url)
    return _file_system(url.partition("://")[0])


@functools.cache
def _file_system(scheme: str) -> Any:
    return client(expanded(f"{scheme}://bucket"))


def failure(url: str, error: Exception, hint: str = "check its name") -> UserError:
    """The error for a URL that cannot be read.

    Args:
      url: of a file or folder.
      error: of a client, which has already retried what may pass.
      hint: what to do if it does not exist.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, FileNotFoundError) and _exists(bucket_of(url)):
        return UserError(f"'{url}' does not exist; {hint}.")
    try:
        with reaching(url):
            raise error
    except UserError as found:
        return found


def _is_refused(error: Exception) -> bool:
    """Whether the server refused for lack of permission."""
    forbidden = isinstance(error, OSError) and str(error).startswith("Forbidden")
    return isinstance(error, PermissionError) or forbidden or getattr(error, "code", 0) == 403


def _exists(bucket: str) -> bool:
    try:
        file_system(bucket).ls(bucket, refresh=True)
    except FileNotFoundError:
        return False
    except Exception:  # which says nothing about the bucket
        return True
    return True
