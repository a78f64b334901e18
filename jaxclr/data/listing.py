"""What is in the folders of a data set, on a disk or in a bucket."""

import concurrent.futures
import os
from collections.abc import Callable
from typing import NamedTuple

from jaxclr.data import buckets
from jaxclr.data.paths import kind_of_mode
from jaxclr.data.pixels import Unreadable
from jaxclr.errors import reason
from jaxclr.text import displayable

THREADS = 16  # folders of a bucket that are listed at a time


class Entries(NamedTuple):
    """What is in a folder, in order of names, without hidden files and folders."""

    folders: list[str]
    files: list[str]
    odd: list[Unreadable]
    runs: list[str]


Lister = Callable[[str], Entries]


class InBucket:
    """Folders of a bucket, each listed once, those beside each other at the same time."""

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS)
        self._found: dict[str, concurrent.futures.Future[list[buckets.Entry]]] = {}

    def entries(self, url: str) -> Entries:
        """The entries of a folder by name, without hidden ones.

        Raises:
          UserError: the folder cannot be listed.
        """
        found = Entries([], [], [], [])
        inside = [entry for entry in self._list(url) if not _is_hidden(entry)]
        for entry in inside:
            if entry.is_folder:
                self._start(entry.url)
        for entry in inside:
            if not entry.is_folder:
                found.files.append(entry.url)
            else:
                (found.runs if self._holds_runs(entry.url) else found.folders).append(entry.url)
        return found

    def marks(self) -> dict[str, str]:
        """The size and version of each file in the folders that were listed."""
        done = [future.result() for future in self._found.values()]
        return {entry.url: entry.mark for inside in done for entry in inside}

    def _start(self, url: str) -> concurrent.futures.Future[list[buckets.Entry]]:
        if url not in self._found:
            self._found[url] = self._pool.submit(buckets.entries, url)
        return self._found[url]

    def _list(self, url: str) -> list[buckets.Entry]:
        return self._start(url.rstrip("/")).result()

    def _holds_runs(self, url: str) -> bool:
        """As of a folder on a disk."""
        if self._is_run(url):
            return True
        inside = [one for one in self._list(url) if not _is_hidden(one)]
        inside = [one for one in inside if not one.url.endswith(".html")]
        return bool(inside) and all(one.is_folder and self._is_run(one.url) for one in inside)

    def _is_run(self, url: str) -> bool:
        inside = {(entry.url, entry.is_folder) for entry in self._list(url)}
        return inside >= {(f"{url}/config.json", False), (f"{url}/checkpoints", True)}


def _is_hidden(entry: buckets.Entry) -> bool:
    return entry.url.rpartition("/")[2].startswith(".")


def entries(path: str) -> Entries:
    """The entries of a folder by name, without hidden ones; none is opened.

    Raises:
      Unreadable: the folder cannot be listed.
    """
    found = Entries([], [], [], [])
    try:
        with os.scandir(path) as scanned:
            entries = sorted((e for e in scanned if not e.name.startswith(".")), key=_name)
    except OSError as error:
        why = f"cannot be listed ({reason(error)})"
        raise Unreadable(path, why, "Change its permissions") from error
    for entry in entries:
        try:
            if entry.is_file():
                found.files.append(entry.path)
            elif entry.is_dir():
                (found.runs if _holds_runs(entry.path) else found.folders).append(entry.path)
            else:
                found.odd.append(Unreadable(entry.path, _oddity(entry)))
        except OSError as error:
            why = f"cannot be read ({reason(error)})"
            found.odd.append(Unreadable(entry.path, why))
    return found


def _holds_runs(path: str) -> bool:
    """Whether a folder is a run of this library, or holds nothing but runs and reports."""
    is_run = lambda folder: (
        os.path.isfile(os.path.join(folder, "config.json"))
        and os.path.isdir(os.path.join(folder, "checkpoints"))
    )
    if is_run(path):
        return True
    try:
        inside = os.scandir(path)
    except OSError:
        return False
    runs = False
    with inside as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not entry.name.endswith(".html"):
                if not is_run(entry.path):
                    return False
                runs = True
    return runs


def _oddity(entry: os.DirEntry) -> str:
    """Why an entry is neither a file nor a folder."""
    try:
        return f"is {kind_of_mode(entry.stat().st_mode)}, not an image"
    except FileNotFoundError:
        return f"is a link to '{displayable(os.readlink(entry.path))}', which does not exist"


def _name(entry: os.DirEntry) -> str:
    return entry.name
