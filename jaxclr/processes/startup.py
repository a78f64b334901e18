"""What a command does before its imports, which take seconds."""

import os
import resource
import signal
from typing import Any

from jaxclr.errors import UserError

ADDRESS_SPACE = 2.5  # GiB; with less, a run of the digits ends in an abort or waits for ever


def exit_on_interrupt() -> None:
    """Lets SIGINT end this process at once, unless it is ignored.

    Imports take seconds, and some of them swallow a KeyboardInterrupt or wait for their threads.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_interrupt() -> None:
    """Undoes `exit_on_interrupt`: SIGINT raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def check_address_space() -> None:
    """Raises UserError if `ulimit -v` leaves too little: JAX's threads would wait for ever."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < ADDRESS_SPACE * 2**30:
        raise UserError(
            f"The address space is limited to {limit / 2**30:.2g} GiB (ulimit -v), and JAX needs "
            f"more than {ADDRESS_SPACE} GiB of it, most of which is never used; raise that limit."
        )


def _exit(*_: Any) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)
