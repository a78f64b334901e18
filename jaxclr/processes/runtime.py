"""Several processes that train one model: JAX's runtime joins them, and what only one of them sees is told to all here.

With one process every function here is what its name says without any other: nothing is sent.
"""

import collections
import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxclr.errors import SharedError, UserError
from jaxclr.processes.launch import first_line

HEARTBEAT_SECONDS = 20  # after which a silent process counts as dead; JAX's own 100 are long to wait for
_TEXT_BYTES = 4096  # of a sentence that is told

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Distributed:
    """How the processes of one run find each other; no part of its configuration."""

    coordinator: str | None = None
    """HOST:PORT at which process 0 can be reached by all; None for a single process."""

    num_processes: int | None = None
    """How many processes there are."""

    process_id: int | None = None
    """Which of them this is, from 0 on."""

    auto: bool = False
    """Ask the cluster for all that: TPU pods, SLURM, GKE and Open MPI tell it."""

    def __post_init__(self) -> None:
        explicit = (self.coordinator, self.num_processes, self.process_id)
        given = [value is not None for value in explicit]
        if self.auto and any(given):
            raise UserError("--distributed.auto asks the cluster: leave --distributed.coordinator and the others out.")
        if any(given) and not all(given):
            raise UserError(
                "Several processes need --distributed.coordinator HOST:PORT, --distributed.num-processes N and "
                "--distributed.process-id I, all three, or --distributed.auto."
            )
        if all(given):
            if not self.coordinator.rpartition(":")[2].isdecimal():
                raise UserError(f"--distributed.coordinator must be HOST:PORT, got {self.coordinator!r}.")
            if not 0 <= self.process_id < self.num_processes:
                raise UserError(
                    f"--distributed.process-id must be 0 to {self.num_processes - 1}, one less than "
                    f"--distributed.num-processes, got {self.process_id}."
                )


def initialize(distributed: Distributed) -> None:
    """Joins the processes; before anything touches a device.

    Raises:
      UserError: there is no cluster to ask, or the others cannot be reached.
    """
    if not distributed.auto and distributed.coordinator is None:
        return
    # SIGTERM is ours to see: JAX's own service for it would take the signal away until training starts.
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
            "--distributed.coordinator HOST:PORT, --distributed.num-processes N and --distributed.process-id I."
        ) from error
    except RuntimeError as error:
        where = distributed.coordinator or "the cluster's coordinator"
        raise UserError(f"The other processes cannot be reached at {where}: {first_line(error)}.") from error
    counts = collections.Counter(device.process_index for device in jax.devices())
    if len(set(counts.values())) > 1:
        raise UserError(
            f"Every process needs as many devices as the others, they have {sorted(counts.items())} (process, devices)."
        )


def is_single() -> bool:
    """Whether this process is the only one."""
    # The number of processes is not asked for where there can be no second: that would take hold of the devices.
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return is_single() or jax.process_index() == 0


def devices() -> list[jax.Device]:
    """The devices of all processes, each process's side by side: its rows of a batch are then one block."""
    return sorted(jax.devices(), key=lambda device: (device.process_index, device.id))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has on its host, on all devices; that they are equal is the caller's to know."""
    everywhere = NamedSharding(mesh, P())
    put = lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf))
    return jax.tree.map(put, tree)


def first_nonempty(said: str | None) -> str | None:
    """What the first process says that says something, on every process; None if none does."""
    if is_single():
        return said
    text = np.frombuffer((said or "").encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES, b"\0"), np.uint8)
    every = multihost_utils.process_allgather(text)
    heard = (bytes(row).rstrip(b"\0").decode(errors="ignore") for row in np.asarray(every))
    return next(filter(None, heard), None)


def broadcast(number: int | None) -> int | None:
    """The first process's number, zero or more, or None."""
    if is_single():
        return number
    value = np.int32(-1 if number is None or not is_first() else number)
    heard = int(multihost_utils.broadcast_one_to_all(value))
    return None if heard < 0 else heard


def broadcast_all(numbers: Iterable[int]) -> Iterator[int]:
    """The first process's numbers, on every process; those of the others are never asked for."""
    mine = iter(numbers)
    while (number := broadcast(next(mine, None) if is_first() else None)) is not None:
        yield number


def agree_on_stop(signal: str | None, *, now: bool) -> str | None:
    """The signal for which all processes stop after the step at hand, or None.

    Args:
      signal: that this process has received.
      now: whether several processes ask each other after this step; one process always knows.
    """
    return first_nonempty(signal) if now or is_single() else None


def run_on_all(act: Callable[[], T]) -> T:
    """What an act returns on each process; what goes wrong on one of them goes wrong on all.

    An act that waits for other processes must go wrong on all of them by itself.

    Raises:
      SharedError: the UserError of the first process that has one.
    """
    if is_single():
        return act()
    result, error = None, None
    try:
        result = act()
    except UserError as raised:
        error = raised
    wrong = first_nonempty(None if error is None else str(error))
    if wrong is not None:
        raise SharedError(wrong) from error
    return result


def run_on_first(act: Callable[[], Any]) -> None:
    """An act of the first process alone, for which the others wait.

    Raises:
      SharedError: its UserError.
    """
    run_on_all(lambda: act() if is_first() else None)


@contextlib.contextmanager
def hold_on_first(lock: contextlib.AbstractContextManager[Any]) -> Iterator[None]:
    """What the first process holds for all.

    Raises:
      SharedError: the UserError with which it cannot.
    """
    with contextlib.ExitStack() as stack:
        run_on_first(lambda: stack.enter_context(lock))
        yield


def check_same(text: Callable[[], str], what: str) -> None:
    """Refuses processes whose texts differ.

    Args:
      text: of this process; not asked for where it is the only one.
      what: its name in the plural.

    Raises:
      SharedError: they differ.
    """
    if is_single():
        return
    data = text().encode()
    sums = np.asarray(multihost_utils.process_allgather(np.uint32(zlib.crc32(data))))
    if differs := [index for index, value in enumerate(sums) if value != sums[0]]:
        raise SharedError(
            f"Processes 0 and {differs[0]} have different {what}: start all with the same command, code and data."
        )


def peer_lost(error: BaseException | None) -> bool:
    """Whether an error says, or was caused by one that says, that another process is gone."""
    if error is None or is_single():
        return False
    if isinstance(error, jax.errors.JaxRuntimeError):
        return not str(error).startswith(("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"))
    return peer_lost(error.__cause__ or error.__context__)
