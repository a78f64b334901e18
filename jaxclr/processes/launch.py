"""The supervisor of the processes that train one model.

`jaxclr launch` supervises several processes; a process started otherwise has a supervisor of its
own.

When a peer dies, a C++ thread of JAX aborts the process with a stack trace, and Python cannot catch
that. The parent hides the trace and prints a sentence. `jax_enable_recoverability` does not replace
it: the process is still aborted when process 0 dies, and after other deaths nothing ends a process
that waits for the dead one in a collective on a GPU. Children end with their parent, however it
ends. Nothing here imports JAX.
"""

import argparse
import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO

COMMANDS = ("train", "resume", "evaluate", "embed")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # they stop a run, which is saved
STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again
# For the other processes to end by themselves; JAX notices a death after ten seconds or more.
GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05
_WATCHED = "JAXCLR_WATCHED"

HELP = """Start several processes: jaxclr launch -n N [--port PORT] COMMAND [ARGUMENT ...]

COMMAND is train, resume, evaluate or embed with its arguments. The processes
work on one model, as they would on several machines. On GPUs, process I uses
GPU I; on CPUs, JAX_NUM_CPU_DEVICES or XLA_FLAGS set the devices of each
process. The output of process 0 is shown; of the others, their last lines if
they fail. SIGTERM, SIGINT and SIGHUP are sent to all. If one process dies,
the others are ended.

Exit status: 0 when done; 2 for user errors; 75 when a signal stopped the run,
with a checkpoint; otherwise that of the process that died, 128 + the signal
if a signal killed it."""


def main(arguments: Sequence[str]) -> int:
    """Runs `jaxclr launch ARGUMENTS`; returns its exit status.

    Raises:
      SystemExit: after --help (0), or for wrong arguments (2).
    """
    options = _parser().parse_args(arguments)
    port = options.port or _free_port()
    where = (
        f"--distributed.coordinator=localhost:{port}",
        f"--distributed.num-processes={options.n}",
    )
    command = [sys.executable, "-m", "jaxclr", options.command, *options.arguments, *where]
    return run([[*command, f"--distributed.process-id={index}"] for index in range(options.n)])


def run(programs: Sequence[Sequence[str]]) -> int:
    """Runs processes, ends all if one dies, reports it, and returns one exit status."""
    with contextlib.ExitStack() as stack:
        outputs = [None, *(stack.enter_context(tempfile.TemporaryFile()) for _ in programs[1:])]
        children: list[subprocess.Popen] = []
        stopped = stack.enter_context(_forwarding(children))
        for index, (program, output) in enumerate(zip(programs, outputs, strict=True)):
            errors = None if output is None else subprocess.STDOUT
            # JAX's own variable: with several GPUs, the process uses this one.
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
        if status > 0 and children[0].returncode != status:  # otherwise process 0 has printed it
            _show_last_lines(outputs[died])
        if status != 2:
            _complain(
                f"Process {died} of {len(children)} {_describe(status)}, and the others were "
                "ended. The same command continues from the newest checkpoint."
            )
        return _shell_status(status)


def is_watched() -> bool:
    """Whether this process has a supervisor as its parent; if so, it ends with its parent."""
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
            assert child.stderr is not None  # a pipe
            trace = _copy_errors(child.stderr)
        status = child.returncode
    if trace and status == -signal.SIGABRT:
        _complain(peer_died(None, "JAX gave up waiting for it"))
        return STOPPED
    sys.stderr.buffer.write(trace)
    sys.stderr.buffer.flush()
    return _shell_status(status)


def stop_signals() -> list[signal.Signals]:
    """SIGNALS, without SIGHUP if it is ignored, as under nohup."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if number != signal.SIGHUP or not ignored]


def leave_terminal() -> None:
    """Discards further output to a terminal: after SIGHUP, writing to it fails."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            with open(os.devnull, "wb") as devnull:
                os.dup2(devnull.fileno(), stream)


def peer_died(index: int | None, reason: str) -> str:
    """The error message of a process whose peer died or cannot be reached."""
    who = "this process" if index is None else f"process {index}"
    return (
        f"A peer of {who} died, or cannot be reached ({reason}): {who} ends too. "
        "Start all again with the same command: the run continues from its newest checkpoint."
    )


def _parser() -> argparse.ArgumentParser:
    usage, description = HELP.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        usage=usage.partition(": ")[2],
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-n", type=_positive, required=True, help="number of processes")
    parser.add_argument("--port", type=_positive, help="port of process 0; by default a free one")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("localhost", 0))
        return any_port.getsockname()[1]


def _start(
    program: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C in the terminal reaches only the parent, which forwards it.
    return subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        env={**os.environ, **(env or {}), _WATCHED: "1"},
        start_new_session=True,
    )


@contextlib.contextmanager
def _forwarding(children: Sequence[subprocess.Popen]) -> Iterator[Callable[[], bool]]:
    """Forwards SIGNALS to the children; yields a function: was one received?"""
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        if number == signal.SIGHUP:
            leave_terminal()
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in stop_signals()}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_to_die(children: Sequence[subprocess.Popen]) -> int | None:
    """Waits for the first failure and returns its index; None if all succeed.

    Of several that failed, one that did not end because a peer died.
    """
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
    """Waits for the end of standard input, which the parent holds open and never writes to."""
    while os.read(0, 1):
        pass
    os._exit(STOPPED)


def _copy_errors(stream: IO[bytes]) -> bytes:
    """Copies lines up to the first one of JAX's coordination service; returns the rest."""
    held = b""
    for line in stream:
        if held or b"coordination_service" in line:
            held += line
        else:
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
    return held


def _show_last_lines(output: IO[bytes], lines: int = 20) -> None:
    output.seek(0)
    for line in output.read().decode(errors="replace").splitlines()[-lines:]:
        _complain(line)


def _describe(status: int) -> str:
    return (
        f"was killed by {signal.Signals(-status).name}"
        if status < 0
        else f"ended with status {status}"
    )


def _shell_status(status: int) -> int:
    return status if status >= 0 else 128 - status


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
