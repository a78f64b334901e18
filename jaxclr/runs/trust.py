"""Signatures of runs, to run the code in a run's folder only if this user put it there.

Reading a run executes the copied sources of its own parts. Each user has a secret key, which signs
the runs that this user starts; other runs are refused unless the user trusts them.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping

from jaxclr.errors import UserError
from jaxclr.paths import Path, cache_folder
from jaxclr.runs.readers import read_bytes

SIGNATURE = "signature"


def signature(config: bytes, sources: Mapping[str, bytes]) -> str | None:
    """This user's signature of a configuration and its sources; None if no key can be stored."""
    key = _key()
    if key is None:
        return None
    mac = hmac.new(key, hashlib.sha256(config).digest(), hashlib.sha256)
    for name, text in sorted(sources.items()):
        mac.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(text).digest())
    return mac.hexdigest()


def is_signed(folder: Path, config: bytes, sources: Mapping[str, bytes]) -> bool:
    """Whether this user's signature is in the folder."""
    wanted = signature(config, sources)
    try:
        found = read_bytes(folder / SIGNATURE).split()
    except UserError:
        found = []
    return wanted is not None and any(hmac.compare_digest(one, wanted.encode()) for one in found)


def check(folder: Path, config: bytes, sources: Mapping[str, bytes]) -> None:
    """Raises UserError unless this user's signature is in the folder."""
    if not is_signed(folder, config, sources):
        code = ", ".join(sorted(sources)) or "modules that its config.json names"
        raise UserError(
            f"{folder} runs code of its own when it is read ({code}), and was not started by this "
            "user here. Read that code, then allow it with --trust (from Python: "
            "jaxclr.Run(folder, trust=True))."
        )


def _key() -> bytes | None:
    """The user's key, created on first use; None if it cannot be stored."""
    path = cache_folder() / "key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes() or None
        with os.fdopen(handle, "wb") as file:
            file.write(key := secrets.token_bytes(32))
        return key
    except (OSError, RuntimeError):
        return None
