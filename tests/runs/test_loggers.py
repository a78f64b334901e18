"""Loggers: what they get, what happens when they fail, and Weights & Biases offline."""

import io
import sys
import types

import pytest
import rich.console

from jaxclr.errors import MissingExtra, UserError
from jaxclr.runs.folder import RunFolder
from jaxclr.runs.loggers import Wandb, sending
from jaxclr.runs.logs import Logs


class Recorder:
    """Notes its calls; raises at the calls named."""

    def __init__(self, *failing):
        self.calls, self._failing = [], failing

    def _note(self, name, *values):
        self.calls.append((name, *values))
        if name in self._failing:
            raise RuntimeError(f"no {name}: offline.\nmore")

    def start(self, folder, config):
        self._note("start", folder, config)

    def write(self, step, values):
        self._note("write", step, dict(values))

    def close(self):
        self._note("close")


def test_loggers_get_what_metrics_jsonl_gets(tmp_path):
    logger, run = Recorder(), RunFolder(tmp_path)
    console = rich.console.Console(file=io.StringIO())
    with (
        sending([logger], tmp_path, {"epochs": 2}, say=pytest.fail) as send,
        Logs(run, start=0, steps=9, console=console, send=send) as logs,
    ):
        logs.write(3, {"loss": 1.5, "spectrum": [1.0, 2.0]})
    written = {"loss": 1.5, "spectrum": [1.0, 2.0]}
    assert logger.calls == [
        ("start", tmp_path, {"epochs": 2}),
        ("write", 3, written),
        ("close",),
    ]
    assert run.lines() == [{"step": 3, **written}]


def test_a_logger_that_fails_is_left_out(tmp_path):
    good, bad, worse, said = Recorder(), Recorder("write", "close"), Recorder("close"), []
    with sending([bad, good, worse], tmp_path, {}, say=said.append) as send:
        send(1, {"loss": 1.0})
        send(2, {"loss": 2.0})
    names = lambda logger: [call[0] for call in logger.calls]
    assert names(good) == ["start", "write", "write", "close"]
    assert names(bad) == ["start", "write", "close"]
    assert said == [
        f"Recorder gets no further metrics: no {name}: offline." for name in ("write", "close")
    ]


def test_a_logger_that_does_not_start_is_a_user_error(tmp_path):
    good = Recorder()
    wanted = "Recorder cannot be started: no start: offline. Fix this, or remove the logger."
    with (
        pytest.raises(UserError, match=wanted),
        sending([good, Recorder("start")], tmp_path, {}, say=pytest.fail),
    ):
        pass
    assert good.calls[-1] == ("close",)


def strict_wandb():
    """A stand-in that accepts the calls of wandb's interface that are used, and no other."""
    module, log = types.ModuleType("wandb"), []

    class Run:
        def define_metric(self, name, *, step_metric):
            log.append(("define", name, step_metric))

        def log(self, data):
            assert all(isinstance(value, int | float) for value in data.values())
            log.append(("log", data))

        def finish(self):
            log.append(("finish",))

    def init(*, project, entity, name, id, resume, dir, config):  # as wandb names them
        assert resume == "allow" and dir.is_dir() and type(config) is dict
        log.append(("init", project, entity, name, id))
        return Run()

    module.init = init
    return module, log


def twice(folder):
    """A run that goes on: its metrics are written in two parts."""
    for first in (1, 3):
        with sending([Wandb("digits")], folder, {"epochs": 2}, say=pytest.fail) as send:
            for step in (first, first + 1):
                send(step, {"loss": 0.5 / step, "spectrum": [1.0], "warning": "flat"})


def test_wandb_gets_numbers_by_step_in_one_run(tmp_path, monkeypatch):
    module, log = strict_wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    twice(tmp_path)
    inits = [entry for entry in log if entry[0] == "init"]
    assert len(inits) == 2 and inits[0] == inits[1]  # the same id
    assert inits[0][1:4] == ("digits", None, tmp_path.name)
    assert log[1:5] == [
        ("define", "*", "step"),
        ("log", {"loss": 0.5, "step": 1}),
        ("log", {"loss": 0.25, "step": 2}),
        ("finish",),
    ]


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="jaxclr[wandb] is an extra of its own")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    twice(tmp_path)
    name = (tmp_path / "wandb" / "id").read_text()
    files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{name}.wandb"))
    assert files and all(b"loss" in path.read_bytes() for path in files)


def test_wandb_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(MissingExtra, match=r"needs wandb.*pip install 'jaxclr\[wandb\]'"),
        sending([Wandb()], tmp_path, {}, say=pytest.fail),
    ):
        pass
