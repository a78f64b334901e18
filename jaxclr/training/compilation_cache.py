"""Programs that were compiled once are found again by the next start of the same command."""

import contextlib
import os
import time
from collections.abc import Iterator

import jax

from jaxclr.runs.trust import cache_folder

OFF = "JAXCLR_COMPILATION_CACHE"  # set to 0 or off
LEAST_SECONDS = 0.2  # programs that compile faster are not kept
KEPT_DAYS = 30  # after the last use


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Keeps compiled programs in the user's cache folder, `programs/` in `runs.trust.cache_folder`, while inside.

    JAX's own settings stand where they name a folder (JAX_COMPILATION_CACHE_DIR), and JAXCLR_COMPILATION_CACHE=0 switches
    this off. JAX's configuration is put back in the end.
    """
    if jax.config.jax_compilation_cache_dir or os.environ.get(OFF, "").lower() in (
        "0",
        "off",
        "false",
    ):
        yield
        return
    from jax.experimental.compilation_cache import compilation_cache as cache

    folder = cache_folder() / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_old(folder)
    except (OSError, RuntimeError):  # a read-only home: compile anew
        yield
        return
    changes = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": LEAST_SECONDS,
    }
    before = {name: getattr(jax.config, name) for name in changes}
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        cache.reset_cache()


def _forget_old(folder: os.PathLike[str]) -> None:
    """Removes programs that were not used for so long; JAX keeps the time of the last use in a file beside each."""
    oldest = time.time() - KEPT_DAYS * 86_400
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file() and max(entry.stat().st_mtime, entry.stat().st_atime) < oldest:
                    os.unlink(entry.path)
