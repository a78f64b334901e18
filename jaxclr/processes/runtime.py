"""Several processes that train one model: joining, broadcasting and agreeing.

A single process communicates nothing.
"""

import collections
import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.errors import SharedError, UserError, reason

# A process that is silent for this long counts as dead; JAX's default is 100.
HEARTBEAT_SECONDS = 20
_TEXT_BYTES = 4096  # longest text that is sent

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Distributed:
    """How the processes of a run find each other; not stored in the configuration."""

    coordinator: str | None = None
    """HOST:PORT at which all processes can reach process 0; None for a single process."""

    num_processes: int | None = None
    """Number of processes."""

    process_id: int | None = None
    """Number of this process, from 0."""

    auto: bool = False
    """Take all of these from the cluster: TPU pods, SLURM, GKE and Open MPI provide them."""

    def __post_init__(self) -> None:
        explicit = (self.coordinator, self.num_processes, self.process_id)
        given = [value is not None for value in explicit]
        if self.auto and any(given):
            raise UserError(
                "--distributed.auto asks the cluster: leave --distributed.coordinator and the "
                "others out."
            )
        if not any(given):
            return
        if self.coordinator is None or self.num_processes is None or self.process_id is None:
            raise UserError(
                "Several processes need --distributed.coordinator HOST:PORT, "
                "--distributed.num-processes N and --distributed.process-id I, all three, or "
                "--distributed.auto."
            )
        if not self.coordinator.rpartition(":")[2].isdecimal():
            raise UserError(
                f"--distributed.coordinator must be HOST:PORT, got {self.coordinator!r}."
            )
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"--distributed.process-id must be 0 to {self.num_processes - 1}, one less "
                f"than --distributed.num-processes, got {self.process_id}."
            )


def initialize(distributed: Distributed) -> None:
    """Joins the processes. To be called before anything uses a device.

    Raises:
      UserError: no cluster is found, or the other processes cannot be reached.
    """
    if not distributed.auto and distributed.coordinator is None:
        return
    # This library handles SIGTERM; JAX's preemption service would intercept it until training
    # starts.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            distributed.coordinator,
            distributed.num_processes,
            distributed.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:
        raise UserError(
            f"--distributed.auto found no cluster that it knows ({str(error).rstrip('.')}); give "
            "--distributed.coordinator HOST:PORT, --distributed.num-processes N and "
            "--distributed.process-id I."
        ) from error
    except RuntimeError as error:
        where = distributed.coordinator or "the cluster's coordinator"
        raise UserError(
            f"The other processes cannot be reached at {where}: {reason(error)}."
        ) from error
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise UserError(
            "Every process needs as many devices as the others, they have "
            f"{sorted(counts.items())} (process, devices)."
        )


def is_single() -> bool:
    """Whether this process is the only one."""
    # `jax.process_count` initializes the devices, so it is only called where there can be a second
    # process.
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return is_single() or jax.process_index() == 0


def devices() -> list[jax.Device]:  # pyright: ignore[reportInvalidTypeForm]
    """All devices, grouped by process, so that a process's rows of a batch are one block."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def device_mesh(axis_name: str) -> Mesh:
    """All devices of all processes along one axis."""
    # jax.make_mesh would reorder the devices of a TPU; a process's rows must be one block.
    return Mesh(np.array(devices()), (axis_name,), axis_types=(AxisType.Auto,))


def my_part(mesh: Mesh, rows: int) -> slice:
    """The block of this process among rows that are spread over the devices of a mesh."""
    each, index = rows // mesh.size, jax.process_index()
    mine = [n for n, device in enumerate(mesh.devices.flat) if device.process_index == index]
    return slice(mine[0] * each, (mine[-1] + 1) * each)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Replicates host arrays over all devices; every process must pass equal arrays."""
    everywhere = NamedSharding(mesh, P())

    def put(leaf):
        return jax.make_array_from_process_local_data(everywhere, np.asarray(leaf))

    return jax.tree.map(put, tree)


def first_nonempty(text: str | None) -> str | None:
    """The first non-empty text, in process order, on every process; None if all are empty."""
    if is_single():
        return text
    data = np.frombuffer((text or "").encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0"), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(data))
    texts = (bytes(row).rstrip(b"\0").decode(errors="ignore") for row in gathered)
    return next(filter(None, texts), None)


def broadcast(number: int | None) -> int | None:
    """The number of the first process, on every process: at least 0, or None."""
    if is_single():
        return number
    value = np.int32(-1 if number is None or not is_first() else number)
    received = int(multihost_utils.broadcast_one_to_all(value))
    return None if received < 0 else received


def broadcast_all(numbers: Iterable[int]) -> Iterator[int]:
    """The numbers of the first process, on every process; those of the others are not evaluated."""
    mine = iter(numbers)
    while (number := broadcast(next(mine, None) if is_first() else None)) is not None:
        yield number


def gather(array: Any) -> np.ndarray:
    """The arrays of all processes, which have one shape, on every process: [processes, ...]."""
    array = np.asarray(array)
    return array[None] if is_single() else np.asarray(multihost_utils.process_allgather(array))


def from_first(array: np.ndarray) -> np.ndarray:
    """The array of the first process, on every process; those of the others have its shape."""
    return array if is_single() else np.asarray(multihost_utils.broadcast_one_to_all(array))


def gather_texts(texts: Sequence[str]) -> list[str]:
    """The texts of all processes, of which each has as many, in the order of the processes."""
    if is_single():
        return list(texts)
    data = [text.encode(errors="surrogateescape") for text in texts]
    width = int(gather(max(map(len, data))).max())
    padded = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in data), np.uint8)
    rows = gather(padded.reshape(len(data), width)).reshape(-1, width)
    return [bytes(row).rstrip(b"\0").decode(errors="surrogateescape") for row in rows]


def agree_on_stop(signal: str | None, *, now: bool) -> str | None:
    """The signal that stops all processes after this step, or None.

    Args:
      signal: name of the signal that this process has received.
      now: whether several processes communicate after this step; a single process never needs to.
    """
    return first_nonempty(signal) if now or is_single() else None


def run_on_all(function: Callable[[], T]) -> T:
    """Calls a function on every process; a UserError on one of them is raised on all.

    A function that communicates must fail on every process.

    Raises:
      SharedError: the UserError of the first process that raised one.
    """
    if is_single():
        return function()
    try:
        result = function()
    except UserError as error:
        raise SharedError(first_nonempty(str(error)) or str(error)) from error
    if wrong := first_nonempty(None):
        raise SharedError(wrong)
    return result


def run_on_first(function: Callable[[], Any]) -> None:
    """Calls a function on the first process; the others wait for it.

    Raises:
      SharedError: its UserError.
    """
    run_on_all(lambda: function() if is_first() else None)


@contextlib.contextmanager
def hold_on_first(context: contextlib.AbstractContextManager[T]) -> Iterator[T | None]:
    """Enters a context on the first process, on behalf of all; on the others it gives None.

    Raises:
      SharedError: the UserError of entering it.
    """
    with contextlib.ExitStack() as stack:
        enter = lambda: stack.enter_context(context) if is_first() else None
        yield run_on_all(enter)


def check_same(text: Callable[[], str], what: str) -> None:
    """Checks that a text is the same on every process.

    Args:
      text: gives the text of this process; not called for a single process.
      what: name of the text in the error, in the plural.

    Raises:
      SharedError: the texts differ.
    """
    if is_single():
        return
    data = text().encode()
    sums = np.asarray(multihost_utils.process_allgather(np.uint32(zlib.crc32(data))))
    if differs := [index for index, value in enumerate(sums) if value != sums[0]]:
        raise SharedError(
            f"Processes 0 and {differs[0]} have different {what}: start all with the same "
            "command, code and data."
        )


def peer_lost(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, reports that another process is gone."""
    if error is None or is_single():
        return False
    if isinstance(error, ValueError) and "Gloo" in str(error):
        return True  # what a collective on CPUs raises when it is dispatched
    if isinstance(error, jax.errors.JaxRuntimeError):
        return not str(error).startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"))
    return peer_lost(error.__cause__ or error.__context__)
