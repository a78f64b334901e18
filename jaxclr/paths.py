"""Paths as users give them."""

import os
import pathlib


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path with a leading ~ or ~USER replaced by a home folder, if there is one."""
    return pathlib.Path(os.path.expanduser(path))
