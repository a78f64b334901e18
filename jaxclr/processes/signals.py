"""SIGTERM, SIGINT and SIGHUP stop training after the current step, with a checkpoint."""

import signal
import threading
from typing import Any, Self

from jaxclr.processes import launch

SIGNALS = launch.SIGNALS


class Stopped(Exception):
    """A signal stopped a run, which is saved; the command line exits with `STATUS`."""

    STATUS = launch.STOPPED


class StopSignals:
    """Records the first SIGTERM, SIGINT or SIGHUP, as a context manager.

    A second SIGTERM or SIGINT has its previous effect. A second SIGHUP has none: closing a terminal
    sends several. SIGHUP stays ignored where it was, as under nohup.

    Python allows signal handlers in the main thread only; in other threads this does nothing.

    Attributes:
      received: the name of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in launch.stop_signals():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: object) -> None:
        if self.received is None:
            self.received = signal.Signals(number).name
        for other, handler in self._before.items():
            signal.signal(other, signal.SIG_IGN if other == signal.SIGHUP else handler)
        if number == signal.SIGHUP:
            launch.leave_terminal()


class StopAtOnce(StopSignals):
    """Raises `Stopped` on the first SIGTERM, SIGINT or SIGHUP: for work that can be repeated.

    Args:
      text: what the message says after the name of the signal.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def _note(self, number: int, frame: object) -> None:
        super()._note(number, frame)
        raise Stopped(f"{self.received}: {self._text}")
