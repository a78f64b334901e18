"""Around training: a report that fails, signals, paths with ~, a folder that cannot be written."""

import logging
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import rich.console
from tiny import tiny_config

from jaxclr import cli, pretraining
from jaxclr.cli import exchanging
from jaxclr.cli import pretraining as commands
from jaxclr.errors import UserError
from jaxclr.processes import startup
from jaxclr.processes.signals import Stopped
from jaxclr.runs.folder import RunFolder
from jaxclr.training.session import open_session

ROOT = pathlib.Path(__file__).parents[1]
DIGITS = str(ROOT / "experiments" / "digits.py")


@pytest.fixture
def pretrain(tmp_path, monkeypatch):
    """Ends a run whose training, evaluation and report do what they are told; what is said."""
    session = open_session(tiny_config("simclr"))

    record = {"step": 180, "features": {"trained": {}}}

    def pretrain(evaluate=lambda *_, **__: record, report=lambda *_: None):
        said = []
        monkeypatch.setattr(pretraining, "train_session", lambda *_, **__: None)
        monkeypatch.setattr(pretraining, "evaluate_closing", evaluate)
        monkeypatch.setattr(pretraining, "write_report", report)
        pretraining.pretrain(session, RunFolder(tmp_path), None, said.append)
        return said

    return pretrain


@pytest.mark.parametrize(
    "error, told",
    [
        (ValueError("\n$5\n^\nParseException: x"), "No report was written: ValueError: $5. The"),
        (OSError(28, "No space left on device"), "OSError: No space left on device"),
        (UserError("It needs Matplotlib."), "No report was written: It needs Matplotlib."),
    ],
)
def test_a_report_that_fails_is_no_failure_of_the_run(error, told, pretrain):
    def fails(*_):
        raise error

    assert told in pretrain(report=fails)[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("work", ["evaluate", "report"])
def test_a_signal_in_the_evaluation_stops_it_in_a_sentence(work, number, pretrain, monkeypatch):
    monkeypatch.setattr("jaxclr.processes.launch.leave_terminal", lambda: None)
    kill = lambda *_, **__: os.kill(os.getpid(), number)
    with pytest.raises(Stopped, match=f"{number.name}: stopped after training.*jaxclr resume"):
        pretrain(**{work: kill})
    assert signal.getsignal(number) == signal.SIG_DFL


def test_what_a_library_only_logs_is_heard(capfd):
    logger = logging.getLogger("absl")
    before = logger.level
    with pretraining.quietly():
        for _ in range(2):
            logger.error("Lost %s\nTraceback ...", "it")
        logger.warning("nothing")
    assert capfd.readouterr().err == "A library reports: Lost it\n" and logger.level == before
    with pytest.raises(UserError), pretraining.quietly():
        logger.error("raised, too")
        raise UserError("raised")
    assert capfd.readouterr().err == "" and not logger.filters


def test_paths_in_quotes_have_their_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    found = []
    monkeypatch.setattr("jaxclr.api.write_report", lambda *paths, **_: found.append(paths))
    cli.main(["report", "~/a", "b", "--out", "~/c.html"])
    assert found == [([tmp_path / "a", pathlib.Path("b")], tmp_path / "c.html")]
    assert commands._parse_train([DIGITS, "--out=~/x"]).out == tmp_path / "x"
    assert exchanging._run_of(["~/x"], [], "") == tmp_path / "x"
    assert commands._parse_train([DIGITS, "--out=~nobody-here/x"]).out == pathlib.Path(
        "~nobody-here/x"
    )


@pytest.mark.parametrize("wrong", ["checkpoints", "run"])
def test_a_file_in_place_of_a_folder_is_told_before_training(wrong, tmp_path):
    session, run = open_session(tiny_config("simclr")), RunFolder(tmp_path / "run")
    path = run.checkpoints if wrong == "checkpoints" else run.folder
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(UserError, match="cannot be written: (File exists|Not a directory)"):
        pretraining.train_session(session, run, console=rich.console.Console())


def test_an_interrupt_while_the_command_starts_ends_it(monkeypatch, capfd):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    try:
        startup.exit_on_interrupt()
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [130] and capfd.readouterr().err == "interrupted\n"
        startup.raise_on_interrupt()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        startup.exit_on_interrupt()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_too_little_address_space_is_told_at_once():
    program = ["bash", "-c", f"ulimit -v 1000000; exec {sys.executable} -m jaxclr train {DIGITS}"]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.startswith("error: The address space")
