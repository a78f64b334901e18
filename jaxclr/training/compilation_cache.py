"""A persistent cache of compiled programs."""

import contextlib
import os
import time
from collections.abc import Iterator

import jax

from jaxclr.paths import cache_folder

VARIABLE = "JAXCLR_COMPILATION_CACHE"  # 0, off or false: no cache
MIN_SECONDS = 0.2  # programs that compile faster are not stored
MAX_DAYS = 30  # since the last use


@contextlib.contextmanager
def compilation_cache() -> Iterator[None]:
    """Stores compiled programs in the folder `programs/` of `paths.cache_folder`.

    A folder in JAX's own settings (JAX_COMPILATION_CACHE_DIR) takes precedence, and
    JAXCLR_COMPILATION_CACHE=0 disables the cache. JAX's configuration is restored at the end.
    """
    own = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if own or os.environ.get(VARIABLE, "").lower() in ("0", "off", "false"):
        yield
        return
    from jax.experimental.compilation_cache import compilation_cache as cache

    folder = cache_folder() / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
    except (OSError, RuntimeError):  # a read-only home: no cache
        yield
        return
    changes = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": MIN_SECONDS,
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


def _remove_old(folder: os.PathLike[str]) -> None:
    """Removes programs not used for MAX_DAYS; JAX writes the time of use to a file beside each."""
    oldest = time.time() - MAX_DAYS * 86_400
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_file() and max(entry.stat().st_mtime, entry.stat().st_atime) < oldest:
                    os.unlink(entry.path)
