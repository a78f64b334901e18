"""Where the seconds of a training loop go."""

import contextlib
import time
from collections.abc import Iterator

import jax

# What the rate counts. The rest are interruptions: checkpoint, evaluation, refresh, profile, and the start, with the first
# batch and the step that compiles.
TRAINING = ("input", "step", "observation", "logging")
ALWAYS = (*TRAINING, "checkpoint", "evaluation")


class Clock:
    """The seconds since the last look by what the host spent them on, and the images of the steps among them.

    The host hands steps to the devices and goes on, so that a step's seconds are those that it waits for them: nothing here
    waits. Whatever is not said to be something else is step.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._seconds = dict.fromkeys(ALWAYS, 0.0)
        self._images = 0
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def spent_on(self, part: str) -> Iterator[None]:
        """The seconds inside are the part's, and a trace shows them by its name."""
        start = time.perf_counter()
        with jax.profiler.TraceAnnotation(part):
            yield
        self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - start

    def count(self, images: int) -> None:
        """A step of so many images was taken."""
        self._images += images

    def look(self) -> dict[str, float]:
        """`images_per_second` of training alone, and `PART_seconds` of each part, since the last look."""
        total = time.perf_counter() - self._since
        parts = self._seconds
        parts["step"] += max(total - sum(parts.values()), 0.0)
        rate = self._images / max(sum(parts[part] for part in TRAINING), 1e-9)
        seconds = {f"{part}_seconds": round(value, 4) for part, value in parts.items()}
        self._start()
        return {"images_per_second": round(rate, 1), **seconds}
