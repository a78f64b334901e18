"""jaxclr from Python: the ten lines, a user's own parts, and the state a program is left in."""

import importlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console
import sklearn  # noqa: F401, it sets KMP_INIT_AT_FORK when it is imported
from flax import nnx
from tiny import distance, tiny_config, unlabeled

import jaxclr
from jaxclr import api
from jaxclr.processes import runtime
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.training.loop import train as train_session
from jaxclr.training.session import open_session

ROOT = pathlib.Path(__file__).parents[1]
QUIET = rich.console.Console(quiet=True)


def notebook():
    """The code of the notebook of the first ten lines, cell by cell, at a small size."""
    cells = json.loads((ROOT / "experiments" / "notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    small = {"epochs=20": "epochs=2", "SmallConv()": "SmallConv(widths=(4, 8))"}
    for old, new in small.items():
        assert any(old in text for text in code)
        code = [text.replace(old, new) for text in code]
    return code


def process_state():
    """What a library must leave as it was."""
    return {
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        **{f"${name}": value for name, value in os.environ.items()},
        **jax.config.values,
        "logging": (logging.getLogger().level, logging.getLogger("absl").level),
        "path": list(sys.path),
        "folder": os.getcwd(),
        "warnings": list(warnings.filters),
        "threads": {thread.name for thread in threading.enumerate() if not thread.daemon},
    }


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """jaxclr's cache of compiled programs, in place of the one that the tests share."""
    shared = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setenv("JAXCLR_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "cache" / "programs"
    jax.config.update("jax_compilation_cache_dir", shared)


def test_the_ten_lines(tmp_path, monkeypatch, capfd):
    """Those of the notebook, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    train, curve, few, matrix, shown = notebook()
    before = process_state()
    lines, out = {}, pathlib.Path("runs/first")
    exec(train, lines)
    run, config = lines["run"], lines["config"]
    columns = run.metrics()
    assert columns["step"].dtype == np.int64 and columns["step"][-1] == 22
    assert columns["loss"].shape == columns["step"].shape and np.isfinite(columns["loss"][-1])
    assert list(eval(few, lines)) == ["1 label", "5 labels"]
    record = json.loads((out / "evaluation.json").read_text())
    assert list(record["protocols"]["fewshot"]["figures"]) == ["1 label", "5 labels"]
    assert set(record["features"]) == {"raw pixels", "untrained", "trained"}
    assert set(run.evaluate(baselines=False)["features"]) == {"trained"}
    encoded = run.load().encode(np.zeros((3, 8, 8, 1), np.uint8))
    assert encoded.shape == (3, 8) and encoded.dtype == jnp.float32
    assert run.load().embed(np.zeros((3, 8, 8, 1), np.uint8)).shape == (3, 64)
    assert (run.folder / "report.html").is_file()
    assert process_state() == before

    for cell, what in ((curve, "lines"), (matrix, "images")):
        exec(cell, lines)
        assert getattr(lines["plt"].gca(), what)
        lines["plt"].close()
    capfd.readouterr()
    again = jaxclr.train(config, out=out)
    assert "and it is finished" in capfd.readouterr().out
    opened = eval(shown, lines)
    assert "<iframe" in opened._repr_html_() and repr(opened) == "jaxclr.Run('runs/first')"
    assert opened.config == again.config
    np.testing.assert_array_equal(opened.metrics()["loss"], columns["loss"])
    with pytest.raises(jaxclr.UserError, match="another configuration: epochs: 2 is now 3"):
        jaxclr.Run(out, config=api.dataclasses.replace(config, epochs=3))
    with pytest.raises(jaxclr.UserError, match="There is no setting of fewshot named 'per_clas'"):
        opened.evaluate("fewshot", per_clas=3)
    with pytest.raises(jaxclr.UserError, match="There is no protocol named 'fewshots'"):
        opened.evaluate("fewshots")


def test_a_thread_trains_without_signal_handlers(tmp_path, own_cache):
    found = []
    before = process_state()
    config = tiny_config("simclr", data=unlabeled(tmp_path), epochs=1, batch_size=32)
    thread = threading.Thread(
        target=lambda: found.append(jaxclr.train(config, out=tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert found[0].metrics()["step"][-1] == 2
    assert process_state() == before and any(own_cache.iterdir())


def test_a_mistake_is_an_exception(tmp_path, capfd):
    with pytest.raises(
        jaxclr.UserError, match="batch_size 4096 is larger than the 1437 training images"
    ):
        jaxclr.train(tiny_config("simclr", batch_size=4096), out=tmp_path / "run")
    with pytest.raises(jaxclr.UserError, match="is not a run"):
        jaxclr.Run(tmp_path / "run")
    assert capfd.readouterr().err == "" and not (tmp_path / "run").exists()


class Series(nnx.Module):
    """[b, T, C] to [b, 6]."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 8, (3,), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 6, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.conv(x))).mean(axis=1))


def series(rngs):
    return Series(rngs)


def jittered(keys, batch):
    x = batch["series"]
    draw = lambda key, row: row + 0.1 * jax.random.normal(key, row.shape, row.dtype)
    return jax.vmap(draw)(keys, x)


def scaled(keys, batch):
    factor = 1 + jax.vmap(jax.random.uniform)(keys)
    return batch["series"] * factor[:, None, None].astype(batch["series"].dtype)


def chain(schedule):
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(schedule, momentum=0.9))


def own_config(**changes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    waves = np.sin(
        np.arange(12)[None, :, None] * (1 + labels[:, None, None]) + rng.normal(size=(80, 1, 2))
    )
    waves = waves.astype(np.float32)
    data = jaxclr.data.Arrays(
        {"series": waves[:48]}, labels[:48], {"series": waves[48:]}, labels[48:]
    )
    return jaxclr.Config(
        method=jaxclr.methods.SimClr(temperature=0.5).with_heads(hidden=8, out=4),
        encoder=jaxclr.encoders.Nnx(series),
        data=data,
        augmentation=jaxclr.augment.Augmentation(views=(jittered, scaled)),
        optimizer=chain,
        **{
            "epochs": 1,
            "batch_size": 16,
            "warmup_epochs": 0.0,
            "log_every": 1,
            "observe_every": 2,
            **changes,
        },
    )


def session_on(devices, monkeypatch, **changes):
    monkeypatch.setattr(runtime, "devices", lambda: jax.devices()[:devices])
    return open_session(own_config(**changes))


def trained(session, out, *, stop_after=None):
    """The last state of a run."""
    folder = RunFolder(out, session=session.config)
    folder.create(session.config, overwrite=False)
    return jax.device_get(train_session(session, folder, console=QUIET, stop_after=stop_after))


@pytest.mark.usefixtures("one_program")
def test_own_parts_together(tmp_path, monkeypatch):
    """An NNX encoder, [N, T, C] data in a dict, own views and an own optax chain."""
    with jax.enable_x64(True):
        one = trained(session_on(1, monkeypatch, observe_every=0), tmp_path / "one")
        assert int(one.step) == 3
        leaves = jax.tree.leaves(one.params)
        assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float64)}
        eight = trained(session_on(8, monkeypatch, observe_every=0), tmp_path / "eight")
        assert distance(one.params, eight.params) < 1e-9 * distance(
            one.params, jax.tree.map(np.zeros_like, one.params)
        )
        assert distance(one.batch_stats, eight.batch_stats) < 1e-9

    session = session_on(1, monkeypatch, epochs=4)
    whole = trained(session, tmp_path / "whole")
    trained(session, tmp_path / "stopped", stop_after=5)
    run = jaxclr.Run(tmp_path / "stopped", config=own_config(epochs=4)).resume(console=QUIET)
    with Checkpoints(run.folder / "checkpoints") as checkpoints:
        resumed = jax.device_get(checkpoints.restore(session.state_shape(), say=pytest.fail))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)

    assert run.evaluate("knn", k=5)["figures"]["accuracy"]["mean"] > 0.5
    rows = run.embed(tmp_path / "rows.npz")
    assert rows == {"train": 48, "test": 32}
    with np.load(tmp_path / "rows.npz") as found:
        features = found["embeddings"]
    data = own_config().data
    np.testing.assert_allclose(features[:48], run.load().encode(data.train), rtol=1e-5, atol=1e-6)
    assert "Series" not in (run.folder / "config.json").read_text()  # a function makes it
    with pytest.raises(jaxclr.UserError, match=r"Arrays of .*jaxclr.Run\(folder, config=config\)"):
        jaxclr.Run(run.folder).evaluate("knn")
    page = (run.folder / "report.html").read_text()
    assert "Affinity matrix" in page


class Random:
    """Grain's protocol: items are made when they are asked for."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {"series": rng.normal(size=(12, 2)).astype(np.float32), "label": index % 2}


def test_a_source_is_read_by_grain(tmp_path):
    config = api.dataclasses.replace(
        own_config(observe_every=0), data=jaxclr.data.Source(Random(), test=Random(), workers=0)
    )
    run = jaxclr.train(config, out=tmp_path / "run")
    assert run.metrics()["step"][-1] == 2
    assert run.evaluate("knn", k=3)["test_images"] == 40
    held = [Random()[index]["series"] for index in range(40)]
    in_memory = jaxclr.data.Arrays(
        {"series": np.stack(held)}, np.arange(40) % 2, {"series": np.stack(held)}, np.arange(40) % 2
    )
    config = api.dataclasses.replace(config, data=in_memory)
    session, other = open_session(config), RunFolder(tmp_path / "memory", session=config)
    other.create(session.config, overwrite=False)
    train_session(session, other, console=QUIET)
    losses = jaxclr.Run(other.folder, config=config).metrics()["loss"]
    np.testing.assert_allclose(run.metrics()["loss"], losses, rtol=1e-5)


FAST = """
import sys
import jaxclr
names = ("flax", "orbax", "grain", "tensorflow_datasets", "sklearn", "matplotlib")
heavy = {"jax", "numpy", "optax", "rich", "tyro", *names} & {*sys.modules}
assert not heavy, heavy
jaxclr.losses
heavy = {"optax", *names} & {*sys.modules}
assert "jax" in sys.modules and not heavy, heavy
assert set(jaxclr.__all__) <= set(dir(jaxclr))
from jaxclr import cli
for arguments in (["--help"], ["list", "methods"], ["list"]):
    cli.main(arguments)
heavy = {*names} & {*sys.modules}
assert not heavy, heavy
import jax
from jax._src import xla_bridge
assert not xla_bridge._backends
"""


def test_rooms_are_loaded_when_they_are_named():
    done = subprocess.run([sys.executable, "-c", FAST], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        jaxclr.trian
    for name in jaxclr.__all__:
        assert getattr(jaxclr, name) is not None
    assert importlib.metadata.version("jaxclr") == jaxclr.__version__


def test_arrows_point_down():
    """A room imports those before it, never those after it."""
    order = (
        *(
            "text",
            "errors",
            "version",
            "paths",
            "buckets",
            "trees",
            "fields",
            "affinity",
            "losses",
            "encoders",
            "augment",
            "data",
            "methods",
        ),
        *(
            "processes",
            "steps",
            "runs",
            "evaluation",
            "training",
            "interop",
            "report",
            "pretraining",
            "api",
            "cli",
        ),
    )
    wrong = []
    for path in (ROOT / "jaxclr").rglob("*.py"):
        room = path.relative_to(ROOT / "jaxclr").parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        for line in path.read_text().splitlines():
            words = line.split()
            if line.startswith("from jaxclr") and "import" in words:
                target = words[1].split(".")[1] if "." in words[1] else words[3].rstrip(",")
                if order.index(target) > order.index(room):
                    wrong.append(f"{path.name}: {line}")
    assert not wrong
