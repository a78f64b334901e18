"""Traces of some steps for TensorBoard and Perfetto."""

import re
from typing import Self

import jax

from jaxclr.errors import UserError
from jaxclr.paths import Path, in_bucket
from jaxclr.runs import buckets
from jaxclr.runs.files import writing
from jaxclr.training.clock import Clock


def steps_to_profile(text: str, steps: int) -> range:
    """Parses START:STOP, steps of a run counted from 0; as in a slice, STOP is excluded.

    Args:
      text: START:STOP.
      steps: number of steps of the run.

    Raises:
      UserError: the text has another form, or names no steps of the run.
    """
    match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", text)
    wanted = range(*map(int, match.groups())) if match else range(0)
    if not wanted:
        raise UserError(
            "--profile must be START:STOP, two whole numbers of which STOP is larger, got "
            f"{text!r}; for instance 10:15."
        )
    if wanted.stop > steps:
        raise UserError(
            f"--profile {text} is past the end of the run, which has {steps} steps; set STOP to "
            f"{steps} at most."
        )
    return wanted


class Trace:
    """Traces some steps of a training loop, used as a context manager.

    Args:
      folder: where to write. TensorBoard's profile plugin reads the folder, Perfetto reads its file
        perfetto_trace.json.gz.
      steps: the steps to trace; empty for no trace.
      start: the step from which the run starts or resumes.

    Raises:
      UserError: the first of these steps is before `start`.
    """

    def __init__(self, folder: Path, steps: range, *, start: int):
        if steps and steps.start < start:
            raise UserError(
                f"--profile {steps.start}:{steps.stop} begins before step {start}, from which this "
                f"run continues; set START to {start} or more, or leave it out."
            )
        self._folder, self._steps, self._runs = folder, steps, False
        self._here = buckets.local(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runs:
            self._stop()

    def before_step(self, step: int, state: object, clock: Clock) -> None:
        """Starts or stops the trace before a step if it is due, once the devices have `state`."""
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
            str(self._here), create_perfetto_trace=True, profiler_options=options
        )
        self._runs = True

    def _stop(self) -> None:
        self._runs = False
        with writing(self._folder):
            jax.profiler.stop_trace()
            if in_bucket(self._folder):
                buckets.upload(self._here, self._folder)
