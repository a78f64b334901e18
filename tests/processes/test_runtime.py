"""Several processes train one model: the same numbers, one voice, and all end together."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import distance, tiny_config
from twenty_steps import judged, steps, streamed

from jaxclr import training
from jaxclr.errors import UserError
from jaxclr.processes import launch, runtime
from jaxclr.processes.runtime import Distributed
from jaxclr.runs.checkpoints import Checkpoints

TESTS = pathlib.Path(__file__).parents[1]
ROOT = TESTS.parent


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of 40 images of 12 x 12: in one folder, and in two classes, one image damaged."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index in range(40):
        image = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        for place in ("all", f"classes/{index % 2}"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            image.save(folder / place / f"{index:02} é.png")
    damaged = folder / "classes" / "0" / "20 é.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    return folder


def environment(devices):
    """Of a process with so many CPU devices, which compiles as the tests do."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    return {
        **os.environ,
        "XLA_FLAGS": " ".join(flags),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": path,
    }


BOTH = ("sim_affinity", "sim_whitening")


@pytest.mark.parametrize(
    "count, devices, methods",
    [
        (2, 4, BOTH[:1]),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in ((2, 4, BOTH[1:]), (4, 4, BOTH), (2, 8, ()))
        ),
    ],
)
def test_twenty_steps_in_several_processes(count, devices, methods, photos, tmp_path):
    """As on as many devices of one process; an evaluation is that of one device."""
    where = [f"localhost:{launch._free_port()}", str(count)]
    program = [
        sys.executable,
        str(TESTS / "twenty_steps.py"),
        str(tmp_path / "out.npz"),
        str(photos),
        " ".join(methods),
        *where,
    ]
    started = [
        subprocess.Popen(
            [*program, str(index)],
            env=environment(devices // count),
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * count, ended
    one_process = streamed(photos / "all", devices=1)
    one_process |= judged(photos / "classes", tmp_path / "run", devices=1)
    for method in methods:
        one_process |= steps(method, devices=devices)
    with np.load(tmp_path / "out.npz") as several:
        assert set(several) == set(one_process)
        for name, want in one_process.items():
            if name.startswith(("features", "embedded embeddings")):
                np.testing.assert_allclose(several[name], want, rtol=0, atol=1e-6, err_msg=name)
            elif want.dtype == np.float64:
                np.testing.assert_allclose(several[name], want, rtol=0, atol=1e-8, err_msg=name)
            else:
                np.testing.assert_array_equal(several[name], want, err_msg=name)
    # They wrote a state that was spread over them; here it is read to every device.
    here = training.open_session(tiny_config())
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        state = checkpoints.restore(here.state_shape(), say=pytest.fail)
    assert distance(state.params, here.init_state().params) < 1e-5


WRONG = {
    "needs? --distributed.coordinator.* all three": dict(coordinator="here:1"),
    "must be HOST:PORT, got 'here'": dict(coordinator="here", num_processes=2, process_id=0),
    "process-id must be 0 to 1.*got 2": dict(coordinator="here:1", num_processes=2, process_id=2),
    "auto asks the cluster": dict(auto=True, num_processes=2),
}


@pytest.mark.parametrize("said", WRONG)
def test_half_an_address_is_refused(said):
    with pytest.raises(UserError, match=said):
        Distributed(**WRONG[said])


def test_pmap_is_for_one_process(monkeypatch):
    monkeypatch.setattr(runtime, "is_single", lambda: False)
    with pytest.raises(UserError, match="pmap runs in one process"):
        training.session._open(tiny_config(mapper="pmap"))


# What follows is about parents and children, which need no JAX.


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs Python programs as processes of one run; their status and what is said of them."""
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)

    def run(*programs):
        status = launch.run([[sys.executable, "-c", program] for program in programs])
        return status, capfd.readouterr().err

    return run


SLEEP = "import time; time.sleep(600)"


def test_one_that_dies_is_named_and_the_others_end(run):
    status, said = run(SLEEP, "import os; os.kill(os.getpid(), 9)", SLEEP)
    assert status == 137
    assert said.startswith("Process 1 of 3 was killed by SIGKILL, and the others were ended.")
    assert said.count("\n") == 1


def test_a_traceback_of_another_process_is_shown(run):
    status, said = run(SLEEP, "import time; time.sleep(0.1); 1 / 0")
    assert status == 1
    assert "ZeroDivisionError" in said and "Process 1 of 2 ended with status 1" in said


def test_a_mistake_is_told_once(run):
    mistake = "import sys; print('error: no.', file=sys.stderr); sys.exit(2)"
    assert run(mistake, mistake) == (2, "error: no.\n")
    assert run(SLEEP, mistake) == (2, "error: no.\n")


def test_all_are_done(run):
    assert run("print(1)", "import time; time.sleep(0.2)") == (0, "")


STOPS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
if {last}: os.kill(os.getppid(), signal.SIGTERM)
time.sleep(600)
"""


def test_a_signal_reaches_all(run):
    wait = "import time; time.sleep(0.3)"
    assert run(STOPS.format(last=False), f"{wait}{STOPS.format(last=True)}") == (75, "")


CHILD = """
import time
from jaxclr.processes import launch
assert launch.is_watched()
print(1, flush=True)
time.sleep(600)
"""
PARENT = f"""
import sys
from jaxclr.processes import launch
launch._start([sys.executable, '-c', {CHILD!r}]).wait()
"""


def test_a_child_ends_with_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE)
    with parent.stdout:
        assert parent.stdout.readline() == b"1\n"
        parent.kill()
        # The pipe ends when nobody holds it any more.
        assert parent.stdout.read() == b""
    parent.wait()


ABORTED = """[Gloo] fine
E1125 coordination_service_agent.cc:289] Polled an error from coordination service
F1125 client.h:80] Terminating process because the JAX distributed service detected fatal errors.
*** Check failure stack trace: ***
"""


SPEAKS = "import os, sys; sys.stderr.write({text!r}); sys.stderr.flush(); {end}"


@pytest.mark.parametrize(
    "text, end", [(ABORTED, "os.abort()"), (ABORTED, "sys.exit(3)"), ("other\n", "os.abort()")]
)
def test_the_stack_trace_of_jax_becomes_a_sentence(text, end, capfd, monkeypatch):
    """Only where JAX has aborted the process; everything else that a process prints is shown."""
    program = [sys.executable, "-c", SPEAKS.format(text=text, end=end)]
    start = launch._start
    monkeypatch.setattr(launch, "_start", lambda _, **streams: start(program, **streams))
    status, said = launch.watch([]), capfd.readouterr().err
    if (text, end) == (ABORTED, "os.abort()"):
        assert status == launch.STOPPED
        first, second = said.splitlines()
        assert first == "[Gloo] fine" and second.startswith(
            "A peer of this process died, or cannot be reached"
        )
    else:
        assert (status, said) == (3 if "exit" in end else 134, text)


@pytest.mark.parametrize(
    "options",
    [["-n"], ["-n", "0", "train"], ["-n", "2"], ["train"], ["-n=2", "--prot", "1", "train"]],
)
def test_launch_tells_its_use(options, capsys):
    with pytest.raises(SystemExit) as exited:
        launch.main(options)
    assert exited.value.code == 2
    assert "usage: jaxclr launch -n N [--port PORT] COMMAND" in capsys.readouterr().err


def test_launch_passes_the_arguments_of_its_command_on(monkeypatch):
    started = []
    monkeypatch.setattr(launch, "run", lambda programs: started.extend(programs) or 0)
    assert (
        launch.main(["-n", "2", "--port=7", "train", "some.py", "-n", "3", "--help", "--port", "9"])
        == 0
    )
    where = ["--distributed.coordinator=localhost:7", "--distributed.num-processes=2"]
    for index, program in enumerate(started):
        command = [
            "train",
            "some.py",
            "-n",
            "3",
            "--help",
            "--port",
            "9",
            *where,
            f"--distributed.process-id={index}",
        ]
        assert program == [sys.executable, "-m", "jaxclr", *command]
    assert len(started) == 2


def command(folder):
    """Of a run of two processes that has a checkpoint after every epoch of 22 steps."""
    tiny = ["--warmup-epochs", "0", "--batch-size", "64", "--encoder.widths", "4", "8"]
    for head in ("projector", "predictor"):
        tiny += [f"--method.{head}.hidden", "12", f"--method.{head}.out", "8"]
    long = ["--epochs", "4", "--checkpoint-every", "1", "--out", str(folder)]
    experiment = str(ROOT / "experiments" / "digits.py")
    return [sys.executable, "-m", "jaxclr", "launch", "-n", "2", "train", experiment, *tiny, *long]


def children(process):
    return [
        int(pid)
        for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        .read_text()
        .split()
    ]


@pytest.mark.full
@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_whose_process_is_killed_goes_on(victim, tmp_path):
    options = dict(
        cwd=ROOT, env=environment(2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    folder = tmp_path / "run"
    first = subprocess.Popen(command(folder), **options)
    while not (folder / "checkpoints" / "22").is_dir():
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.1)
    pids = children(first)
    os.kill(pids[victim], signal.SIGKILL)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 137
    assert f"Process {victim} of 2 was killed by SIGKILL, and the others were ended." in said
    assert "Traceback" not in said and "stack trace" not in said
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids)

    second = subprocess.run(command(folder), **options)
    assert second.returncode == 0, second.stderr
    assert json.loads((folder / "evaluation.json").read_text())["step"] == 88
    steps = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    "error, lost",
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), True),
        (jax.errors.JaxRuntimeError("UNAVAILABLE: the peer is gone"), True),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), False),
        (ValueError("a mistake"), False),
    ],
)
def test_a_lost_peer_is_told_from_other_errors(error, lost, monkeypatch):
    monkeypatch.setattr(runtime, "is_single", lambda: False)
    assert runtime.peer_lost(error) == lost
    wrapped = RuntimeError("around it")
    wrapped.__cause__ = error
    assert runtime.peer_lost(wrapped) == lost
