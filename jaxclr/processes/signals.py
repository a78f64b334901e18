"""SIGTERM and SIGINT stop training after the current step, with a checkpoint."""

import signal
import threading
from typing import Any, Self

from jaxclr.processes import launch

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A signal stopped a run, which is saved; the command line exits with `STATUS`."""

    STATUS = launch.STOPPED


class StopSignals:
    """Records the first SIGTERM or SIGINT, as a context manager.

    The second signal has its previous effect.

    Python allows signal handlers in the main thread only; in other threads this does nothing.

    Attributes:
      received: the name of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: object) -> None:
        self.received = signal.Signals(number).name
        self.__exit__()
