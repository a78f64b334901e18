"""How long the parts of a training loop take."""

import contextlib
import time
from collections.abc import Iterator

import jax

from jaxclr.processes import runtime

# Parts that count for the rate. Others interrupt training: checkpoint, evaluation, refresh,
# snapshot, profile, and start, which is the first batch and the step that compiles.
TRAINING = ("input", "step", "observation", "logging")
ALWAYS = (*TRAINING, "checkpoint", "evaluation")


class Clock:
    """Measures the host's seconds by part, and the rate of images, since the last call of `lap`.

    The clock never waits for the devices. Steps are dispatched asynchronously, so the seconds of
    "step" are those that the host waits for them. Unassigned time counts as "step".
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._seconds: dict[str, float] = dict.fromkeys(ALWAYS, 0.0)
        self._images = 0
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def spent_on(self, part: str) -> Iterator[None]:
        """Assigns the time inside to a part, whose name a trace shows."""
        start = time.perf_counter()
        with jax.profiler.TraceAnnotation(part):
            yield
        self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - start

    def count(self, images: int) -> None:
        """Counts the images of a step."""
        self._images += images

    def lap(self) -> dict[str, float]:
        """Returns `images_per_second` of training and `PART_seconds` of each part; restarts."""
        total = time.perf_counter() - self._since
        parts = self._seconds
        parts["step"] += max(total - sum(parts.values()), 0.0)
        rate = self._images / max(sum(parts[part] for part in TRAINING), 1e-9)
        seconds = {f"{part}_seconds": round(value, 4) for part, value in parts.items()}
        self._start()
        return {"images_per_second": round(rate, 1), **seconds}


class Alarm:
    """Says that so many minutes have passed since it was started; never without a number."""

    def __init__(self, minutes: float | None):
        self._minutes = minutes
        self.restart()

    def restart(self) -> None:
        """Counts from now."""
        self._since = time.monotonic()

    def rings(self, *, now: bool) -> bool:
        """Whether the time has passed.

        Args:
          now: whether several processes communicate after this step: they take the time of the
            first. A single process never needs to.
        """
        if self._minutes is None or not (now or runtime.is_single()):
            return False
        over = time.monotonic() - self._since >= 60 * self._minutes
        return bool(runtime.broadcast(int(over)))
