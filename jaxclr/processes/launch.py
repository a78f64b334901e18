"""Parents of processes that train together: `jaxclr launch` for several on this machine, elsewhere one for each.

When a peer dies, JAX ends a process from a thread of its own, with a C++ trace and no way for Python to speak. Its parent
says it in a sentence. Children end with their parent, however it ends. Nothing here needs JAX.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

COMMANDS = ("train", "resume", "evaluate")
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again
GRACE_SECONDS = 5.0  # to say a last word; JAX notices a death after ten seconds or more
POLL_SECONDS = 0.05
_WATCHED = "JAXCLR_WATCHED"
_ABORTED = b"JAX distributed service detected fatal errors"
_SUSPECT = (b"coordination_service", _ABORTED)

HELP = """Start several processes on this machine: jaxclr launch -n N [--port PORT] COMMAND [ARGUMENT ...]

COMMAND is train, resume or evaluate with its arguments. All processes together are one run, as they are over several
machines. On GPUs process I sees GPU I alone; on CPUs each has the devices that JAX_NUM_CPU_DEVICES or XLA_FLAGS say. What
process 0 prints is shown; of the others, what they printed last if they fail. SIGTERM and SIGINT reach all. If one dies,
the others are ended.

Exit status: 0 when done; 2 for what you can mend; 75 when a signal stopped the run, with a checkpoint; otherwise that of the
process that died, 128 + the signal if one killed it."""


def main(arguments: Sequence[str]) -> int:
    """Runs `jaxclr launch ARGUMENTS`; returns its exit status."""
    at = next((i for i, argument in enumerate(arguments) if argument in COMMANDS), len(arguments))
    options, command = list(arguments[:at]), list(arguments[at:])
    if {"-h", "--help"} & set(options):
        print(HELP)
        return 0
    try:
        count, port = _parse(options)
        if not command:
            raise ValueError(f"a command is missing: {', '.join(COMMANDS)}, with its arguments")
    except ValueError as error:
        _complain(f"error: {error}. Use: jaxclr launch -n N [--port PORT] COMMAND [ARGUMENT ...]")
        return 2
    port = port or _free_port()
    where = ["--distributed.coordinator", f"localhost:{port}", "--distributed.num-processes", str(count)]
    programs = [
        [sys.executable, "-m", "jaxclr", *command, *where, "--distributed.process-id", str(index)]
        for index in range(count)
    ]
    return run(programs)


def run(programs: Sequence[Sequence[str]]) -> int:
    """Runs processes that end together; returns an exit status for all, after a sentence on the one that died, if any."""
    with contextlib.ExitStack() as stack:
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in programs[1:])]
        children: list[subprocess.Popen] = []
        stopped = stack.enter_context(_forwarding(children))
        for index, (program, output) in enumerate(zip(programs, outputs, strict=True)):
            errors = None if output is None else subprocess.STDOUT
            # Of JAX's own: a process that finds several GPUs sees this one.
            visible = {"JAX_LOCAL_DEVICE_IDS": str(index)}
            child = _start(program, stdout=output, stderr=errors, env=visible)
            children.append(stack.enter_context(child))
        died = _first_to_die(children)
        if died is None:
            return 0
        _end(children)
        status = children[died].returncode
        if stopped() or status == STOPPED:
            return max(children[0].returncode, STOPPED)
        if status > 0 and children[0].returncode != status:  # else process 0 has told it
            _show(outputs[died])
        if status != 2:
            _complain(
                f"Process {died} of {len(children)} {_told(status)}, and the others were ended. "
                "The same command goes on from the newest checkpoint."
            )
        return _shell_status(status)


def is_watched() -> bool:
    """Whether this process has such a parent; then it ends with it."""
    if os.environ.pop(_WATCHED, None) is None:
        return False
    threading.Thread(target=_end_with_parent, daemon=True).start()
    return True


def watch(arguments: Sequence[str]) -> int:
    """Runs `jaxclr ARGUMENTS`, one of several processes, in a child; returns its exit status."""
    children: list[subprocess.Popen] = []
    with _forwarding(children):
        with _start([sys.executable, "-m", "jaxclr", *arguments], stderr=subprocess.PIPE) as child:
            children.append(child)
            aborted = _copy_errors(child.stderr)
        status = child.returncode
    if aborted:
        _complain(peer_died(_process_id(arguments), "JAX gave up waiting for it"))
        return STOPPED
    return _shell_status(status)


def peer_died(index: int | None, reason: str) -> str:
    """The sentence of a process whose peer is gone."""
    who = "this process" if index is None else f"process {index}"
    return (
        f"A peer of {who} died, or cannot be reached ({reason}): {who} ends too. "
        "Start all again with the same command: the run goes on from its newest checkpoint."
    )


def first_line(error: BaseException) -> str:
    """Of what an error says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".: ")


def _parse(options: list[str]) -> tuple[int, int | None]:
    numbers: dict[str, int | None] = {"-n": None, "--port": None}
    words = [word for option in options for word in option.split("=", 1)]
    while words:
        name = words.pop(0)
        if name not in numbers:
            raise ValueError(f"{name!r} is no option of launch and no command")
        value = words.pop(0) if words else ""
        if not value.isdecimal() or int(value) < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        numbers[name] = int(value)
    if numbers["-n"] is None:
        raise ValueError("-n is missing, the number of processes")
    return numbers["-n"], numbers["--port"]


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return any_port.getsockname()[1]


def _start(program: Sequence[str], *, env: Mapping[str, str] = {}, **streams: object) -> subprocess.Popen:
    # In a session of its own: Ctrl-C of the terminal reaches the parent alone, which forwards it once.
    return subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        env={**os.environ, **env, _WATCHED: "1"},
        start_new_session=True,
        **streams,
    )


@contextlib.contextmanager
def _forwarding(children: Sequence[subprocess.Popen]) -> Iterator[Callable[[], bool]]:
    """Sends SIGTERM and SIGINT on to the children; gives whether one came."""
    came: list[int] = []

    def forward(number: int, _: object) -> None:
        came.append(number)
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_to_die(children: Sequence[subprocess.Popen]) -> int | None:
    """Waits; the child that fails first, of several one that did not leave because of another; None if none fails."""
    while True:
        codes = [child.poll() for child in children]
        failed = [index for index, code in enumerate(codes) if code]
        if failed:
            return min(failed, key=lambda index: (codes[index] == STOPPED, index))
        if None not in codes:
            return None
        time.sleep(POLL_SECONDS)


def _end(children: Sequence[subprocess.Popen]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        child.kill()
        child.wait()


def _end_with_parent() -> None:
    """The parent holds the other end of standard input, and never writes."""
    while os.read(0, 1):
        pass
    os._exit(STOPPED)


def _copy_errors(stream: BinaryIO) -> bool:
    """Copies a child's standard error to ours but for JAX's last words of a peer that died; tells whether it spoke them."""
    held = b""
    for line in stream:
        if held or any(word in line for word in _SUSPECT):
            held += line
        else:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
    if _ABORTED in held:
        return True
    sys.stderr.buffer.write(held)
    sys.stderr.buffer.flush()
    return False


def _process_id(arguments: Sequence[str]) -> int | None:
    text = " ".join(arguments).replace("=", " ").replace("_", "-").split("--distributed.process-id ")[-1].split(" ")[0]
    return int(text) if text.isdecimal() else None


def _show(output: BinaryIO, lines: int = 20) -> None:
    output.seek(0)
    for line in output.read().decode(errors="replace").splitlines()[-lines:]:
        _complain(line)


def _told(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _shell_status(status: int) -> int:
    return status if status >= 0 else 128 - status


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
