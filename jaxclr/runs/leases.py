"""The lock of a run in a bucket: an object that its owner renews.

It is written on the condition that the object is the one that was read before (its generation in
gs://, its ETag in s3://). A lock that does not change for `STALE_SECONDS`, by the clock of the
process that waits for it, is taken over; so is that of a process of this machine that has ended.
"""

import contextlib
import functools
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator

from jaxclr.buckets import client, reaching
from jaxclr.errors import UserError
from jaxclr.paths import Path
from jaxclr.runs.buckets import guarding

STALE_SECONDS = 90.0
BEAT_SECONDS = 20.0
POLL_SECONDS = 1.0

_held: dict[str, "_Lease"] = {}


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock of a folder.

    Args:
      path: the object of the lock, in the folder.

    Raises:
      UserError: another process holds it, or the bucket cannot be used.
    """
    lease = _Lease(path)
    with reaching(path):
        lease.acquire()
    _held[str(path.parent)] = lease
    lease.start()
    try:
        with guarding(path.parent, lease.check):
            yield
    finally:
        del _held[str(path.parent)]
        with contextlib.suppress(UserError):  # it will be taken over
            lease.release()


class _Lease:
    def __init__(self, path: Path):
        self.name = uuid.uuid4().hex
        self._path = path
        self._owner = {
            "owner": f"process {os.getpid()} on {socket.gethostname()}",
            "lease": self.name,
            "machine": _machine(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
        }
        self._version: str | None = None
        self._beats = 0
        self._renewed = time.monotonic()
        self._lost = False
        self._writing = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="jaxclr lock")

    def acquire(self) -> None:
        """Writes the lock once it does not exist or is stale."""
        replaced: str | None = None
        while not self._write(replaced):
            replaced = _wait_until_stale(self._path)

    def start(self) -> None:
        self._thread.start()

    def check(self) -> None:
        with reaching(self._path):
            if not self._lost and time.monotonic() - self._renewed > STALE_SECONDS:
                self._renew()  # it is still this process's, unless another one wrote it
            owner = _read(self._path)[1].get("owner", "another process") if self._lost else ""
        if self._lost:
            raise UserError(
                f"{self._path.parent} was taken over by {owner}, because this process was not "
                "heard of for too long. Nothing more is written; wait until that is done."
            )

    def release(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()
        with reaching(self._path):
            if not self._lost and _read(self._path)[0] == self._version:
                client(self._path).rm(str(self._path))

    def _beat(self) -> None:
        while not self._lost and not self._end.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # `check` tries again, and raises
                self._renew()

    def _renew(self) -> None:
        with self._writing:
            self._lost = self._lost or not self._write(self._version)

    def _write(self, version: str | None) -> bool:
        """Whether the lock was this version, or absent for None, and is now this process's."""
        self._beats += 1
        content = json.dumps({**self._owner, "beat": self._beats}).encode()
        start = time.monotonic()
        _put(self._path, content, version)
        # A request may succeed without an answer, and its repetition is refused: what is there now
        # decides.
        now, owner = _read(self._path)
        if owner != json.loads(content):
            return False
        self._version, self._renewed = now, start
        return True


def _wait_until_stale(path: Path) -> str | None:
    """The version of a lock that may be replaced; None if it does not exist any more.

    Raises:
      UserError: its owner has renewed it.
    """
    version, owner = _read(path)
    if version is None or _has_ended(owner):
        return version
    name = owner.get("owner", "another process")
    print(
        f"{path.parent} is locked by {name}. If that gives no sign of life, its lock is taken over "
        f"in {STALE_SECONDS:.0f} seconds.",
        file=sys.stderr,
    )
    since = time.monotonic()
    while (now := _read(path)[0]) == version:
        if time.monotonic() - since >= STALE_SECONDS:
            return version
        time.sleep(POLL_SECONDS)
    if now is None:
        return None
    raise UserError(
        f"{path.parent} is in use by {name}. Wait until that is done, or use another folder."
    )


def _put(path: Path, content: bytes, version: str | None) -> None:
    """Writes an object if it has this version, or does not exist for None."""
    files, (bucket, key) = client(path), str(path).partition("://")[2].split("/", 1)
    try:
        if str(path).startswith("s3://"):
            condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
            files.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
        else:
            files.call(
                *("POST", f"{files._location}/upload/storage/v1/b/{bucket}/o"),
                uploadType="media",
                name=key,
                ifGenerationMatch=version or "0",
                data=content,
            )
    except FileExistsError:
        return
    except OSError as error:
        response = getattr(error.__cause__, "response", None) or {}
        refused = response.get("Error", {}).get("Code") in _REFUSED
        gone = version is not None and isinstance(error, FileNotFoundError)
        if not refused and not gone:
            raise


# S3's answers if an object has another version, or is being written by another process.
_REFUSED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def _read(path: Path) -> tuple[str | None, dict[str, object]]:
    """Version and content of a lock; None and {} if it does not exist."""
    files = client(path)
    try:
        known = files.info(str(path))
        content = files.cat_file(str(path))
    except FileNotFoundError:
        return None, {}
    try:
        owner = json.loads(content)
    except ValueError:
        owner = {}
    version = known.get("generation") or known["ETag"]
    return str(version), owner if isinstance(owner, dict) else {}


def _has_ended(owner: dict[str, object]) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    here, pid = _machine(), owner.get("pid")
    if here is None or owner.get("machine") != here or not isinstance(pid, int):
        return False
    mine = {lease.name for lease in _held.values()}
    return _born(pid) != owner.get("born") or (
        pid == os.getpid() and owner.get("lease") not in mine
    )


@functools.cache
def _machine() -> str | None:
    """This boot of this machine and the namespace of its processes; None if that is unknown."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _born(pid: int) -> str | None:
    """When a process began, in ticks since the machine's boot; None if it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
