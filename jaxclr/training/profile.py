"""A trace of some steps, for TensorBoard and Perfetto."""

import pathlib
import re
from typing import Self

import jax

from jaxclr.errors import UserError
from jaxclr.runs.files import writing
from jaxclr.training.clock import Clock


def steps_to_profile(text: str, steps: int) -> range:
    """The steps that START:STOP says, of a run of so many: as in a slice, the first is 0 and STOP is left out.

    Raises:
      UserError: it is no such text, or says no steps of the run.
    """
    match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", text)
    wanted = range(*map(int, match.groups())) if match else range(0)
    if not wanted:
        raise UserError(
            f"--profile must be START:STOP, two whole numbers of which STOP is larger, got {text!r}; for instance 10:15."
        )
    if wanted.stop > steps:
        raise UserError(
            f"--profile {text} reaches past the end of the run, which has {steps} steps; set STOP to {steps} at most."
        )
    return wanted


class Trace:
    """Traces some steps of a training loop, used as a context manager.

    Args:
      folder: to write into; TensorBoard's profile plugin opens it, Perfetto the file perfetto_trace.json.gz in it.
      steps: which ones; none for no trace.
      start: steps taken already.

    Raises:
      UserError: the first of these steps was taken already.
    """

    def __init__(self, folder: pathlib.Path, steps: range, *, start: int):
        if steps and steps.start < start:
            raise UserError(
                f"--profile {steps.start}:{steps.stop} begins before step {start}, from which this run goes on; "
                f"set START to {start} or more, or leave it out."
            )
        self._folder, self._steps, self._runs = folder, steps, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runs:
            self._stop()

    def turn(self, step: int, state: object, clock: Clock) -> None:
        """Starts or stops before a step, where the devices have come to `state`; waits for it then alone."""
        if not self._steps or step not in (self._steps.start, self._steps.stop):
            return
        jax.block_until_ready(state)
        with clock.spent_on("profile"):
            if step == self._steps.start:
                self._start()
            else:
                self._stop()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # every Python call would be an event
        jax.profiler.start_trace(
            str(self._folder), create_perfetto_trace=True, profiler_options=options
        )
        self._runs = True

    def _stop(self) -> None:
        self._runs = False
        with writing(self._folder):
            jax.profiler.stop_trace()
