"""Every second of the loop is one part's, and the rate is that of training alone."""

import pytest

from jaxclr.training import clock as clocks


def test_seconds_and_rate(monkeypatch):
    now = 100.0
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: now)
    clock = clocks.Clock()
    for part, seconds in (
        ("start", 9),
        ("input", 1),
        ("step", 2),
        (None, 3),
        ("checkpoint", 20),
        ("logging", 2),
    ):
        if part is None:
            now += seconds  # not said to be anything: the step
        else:
            with clock.spent_on(part):
                now += seconds
    clock.count(64)
    said = clock.lap()
    want = {
        "start": 9,
        "input": 1,
        "step": 5,
        "observation": 0,
        "logging": 2,
        "checkpoint": 20,
        "evaluation": 0,
    }
    assert said == {
        "images_per_second": 8.0,
        **{f"{part}_seconds": float(s) for part, s in want.items()},
    }
    now += 4
    clock.count(32)
    said = clock.lap()
    assert said["images_per_second"] == pytest.approx(8) and said["step_seconds"] == 4
    assert "start_seconds" not in said and said["checkpoint_seconds"] == 0
