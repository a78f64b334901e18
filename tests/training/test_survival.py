"""Interrupted runs: signals, a full disk, a damaged checkpoint, a second run in the folder."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import rich.console
from tiny import tiny_config

from jaxclr import cli, training
from jaxclr.errors import UserError
from jaxclr.processes.signals import SIGNALS, Stopped, StopSignals
from jaxclr.runs import files, logs
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder

CONFIG = tiny_config(batch_size=128, checkpoint_every=1, evaluate_every=1)  # 2 epochs of 11 steps


def train(session, run, **options):
    """The last state, and what the console showed."""
    console = rich.console.Console(file=io.StringIO(), width=500)
    return training.train(session, run, console=console, **options), console.file.getvalue()


@pytest.mark.usefixtures("one_program")
def test_a_signal_a_full_disk_and_a_damaged_checkpoint_change_no_bit(tmp_path, monkeypatch):
    session = training.open_session(CONFIG)
    whole, run = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    for each in (whole, run):
        each.create(session.config, overwrite=False)
    want, _ = train(session, whole)

    before = [signal.getsignal(number) for number in SIGNALS]
    saved, save = [], Checkpoints.save
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, state, step: saved.append(step) or save(self, state, step)
    )

    def look(*_):
        assert saved == []  # a run that goes on from the checkpoint of step 11 does not look again
        os.kill(os.getpid(), signal.SIGTERM)
        return {"seen": 1}

    with pytest.raises(Stopped, match="SIGTERM: stopped after step 12 of 22.*jaxclr resume"):
        train(session, run, evaluate=look)
    assert saved == [11, 12] and '"seen": 1' in run.metrics.read_text()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert {path.name for path in run.checkpoints.iterdir()} == {"11", "12"}

    arrays = next((run.checkpoints / "12" / "state" / "d").iterdir())
    arrays.write_bytes(bytes(arrays.stat().st_size))
    kept = run.metrics.read_text().splitlines()[:2]

    def full(self, step, **what):
        if step >= 20:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logs.Logs, "_event", full)
        with pytest.raises(UserError, match="run cannot be written: No space left on device"):
            train(session, run)
    assert {path.name for path in run.checkpoints.iterdir()} == {"11", "damaged-12"}
    assert run.metrics.read_text().splitlines()[:2] == kept

    state, _ = train(session, run)
    for one, other in zip(jax.tree.leaves(want), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_second_signal_does_what_it_did_before(request):
    # A shell starts what it puts in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with StopSignals() as signals:
        assert signals.received is None
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_signals_alone():
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def enter():
        with StopSignals():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == before


def test_the_command_says_that_it_was_stopped(monkeypatch, capsys):
    def stopped(*_):
        raise Stopped("SIGTERM: stopped.")

    monkeypatch.setattr("jaxclr.cli.pretraining.train", stopped)
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train"])
    assert exit_.value.code == 75
    assert capsys.readouterr().err == "SIGTERM: stopped.\n"


# The package's imports take seconds: these two modules need none of them.
HOLDER = """
import importlib, pathlib, sys, time, types
root = pathlib.Path(sys.argv[1])
for name in ("jaxclr", "jaxclr.training"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [str(root / name.replace(".", "/"))]
files = importlib.import_module("jaxclr.runs.files")
with files.locked(pathlib.Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_folder_is_held_until_its_process_dies(tmp_path):
    path = tmp_path / "run" / ".lock"
    program = [
        sys.executable,
        "-c",
        HOLDER,
        str(pathlib.Path(files.__file__).parents[2]),
        str(path),
    ]
    holder = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=f"run is in use by process {holder.pid} on "),
            files.locked(path),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    with files.locked(path):
        assert f"process {os.getpid()} on " in path.read_text()


def test_a_run_is_finished_when_it_is_evaluated(tmp_path):
    run = RunFolder(tmp_path)
    assert not run.finished(22, evaluated=False)
    (run.checkpoints / "22").mkdir(parents=True)
    assert not run.finished(22, evaluated=False)
    run.report.touch()
    assert run.finished(22, evaluated=False) and not run.finished(22, evaluated=True)
    run.write_evaluation({"step": 11})
    assert not run.finished(22, evaluated=True)
    run.write_evaluation({"step": 22})
    assert run.finished(22, evaluated=True)


def test_a_folder_that_was_barely_begun_is_as_good_as_empty(tmp_path):
    run = RunFolder(tmp_path)
    (tmp_path / ".config.json.part").write_text("{")
    with run.locked():
        run.create(CONFIG, overwrite=False)
    assert run.exists
