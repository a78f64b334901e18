"""The benchmarks run from end to end and print their tables; no test asserts a time."""

import importlib
import json
import os
import pathlib

import numpy as np
import pytest
import rich.console
import rich.table
from distributed import mesh
from tiny import tiny_config

from jaxclr import training
from jaxclr.data import Data, load

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark as its script would be."""
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def told(tables):
    console = rich.console.Console(width=300)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get()


TINY_LOSSES = {
    "info_nce": (16,),
    "tiles": (16,),
    "nt_xent": (16,),
    "clip": (16,),
    "siglip": (16,),
    "symmetric_loss": (16,),
    "others": (16,),
    "width": 8,
    "sim_trace": (16,),
    "sim_trace_width": 8,
}


def test_losses_are_timed_and_agree(benchmark, tmp_path):
    loss = benchmark("loss")
    record = loss.measure(loss.Sizes(**TINY_LOSSES), repeats=2)
    seen = {(result["loss"], result["implementation"]) for result in record["results"]}
    wanted = {(name, one) for name, kinds in loss.LOSSES.items() for one in kinds}
    assert seen == wanted | {("nt_xent", loss.PYTORCH), ("sim_trace", "ours")}
    text = told(loss.tables(record))
    assert "nt_xent, B = 16, D = 8" in text and "at most 1024: met" in text
    written(benchmark("measure"), record, loss.plot, tmp_path)


@pytest.mark.parametrize("rows, devices", [((32,), (2,)), ((16, 64), (8,))])
def test_memory_and_collectives_are_told(benchmark, rows, devices, tmp_path):
    memory = benchmark("memory")
    record = memory.measure(memory.Sizes(rows=rows, devices=devices))
    assert len(record["results"]) == len(memory.LOSSES) * 3 * len(rows) * len(devices)
    for result in record["results"]:
        ring = result["implementation"] == "ring"
        assert ("collective_permute" in result["collectives"]) == ring
        assert ("all_gather" in result["collectives"]) == (not ring)
    assert f"info_nce, D = 256, devices: {devices[-1]}" in told(memory.tables(record))
    written(benchmark("measure"), record, memory.plot, tmp_path)


def test_input_is_measured(benchmark):
    input_ = benchmark("input")
    sizes = input_.Sizes(
        images=8,
        width=64,
        height=48,
        view=16,
        batch=4,
        rounds=2,
        listed=200,
        workers=0,
        epochs=2,
        records=16,
        record_side=8,
        record_batch=4,
    )
    record = input_.measure(sizes)
    assert record["memory"]["growth"] >= 1 and len(record["memory"]["mib"]) == 2
    text = told(input_.tables(record))
    assert "s to list 200 files" in text and "at most 20: " in text
    assert "Grain's workers" in text and "one process, two threads" in text


def test_neighbours_are_those_of_scikit_learn(benchmark):
    knn = benchmark("knn")
    record = knn.measure(knn.Options(train=2000, test=100, width=16))
    assert record["agreement"] > 0.98 and record["mib_above_features"] >= 0
    assert "20 neighbors of 100 rows among 2,000, D = 16" in told(knn.tables(record))


@pytest.mark.full
def test_a_linear_classifier_is_as_good_as_scikit_learns(benchmark, tmp_path):
    linear, digits = benchmark("linear"), load(Data())
    splits = {"train": digits.train, "test": digits.test}
    np.savez(
        tmp_path / "features.npz",
        embeddings=np.concatenate(
            [split.examples.reshape(-1, 64) / 255 for split in splits.values()]
        ),
        labels=np.concatenate([split.labels for split in splits.values()]),
        splits=np.repeat(list(splits), [split.size for split in splits.values()]),
    )
    record = linear.measure(linear.Options(tmp_path / "features.npz", seeds=2))
    assert len(record["ours"]) == 2 and record["theirs"] > 0.9
    assert np.mean(record["ours"]) == pytest.approx(record["theirs"], abs=0.01)
    assert "1,437 training and 360 test rows, D = 64" in told(linear.tables(record))


TINY_DEVICE = {"sides": (16,), "batches": (1,), "channels": 4, "mebibytes": 1, "times": 2}


def test_a_device_at_its_best(benchmark):
    gpu, rooflines = benchmark("gpu"), benchmark("rooflines")
    rows = [
        # Of an odd number of runs both medians are of the same one: rate times time is the work.
        {"name": name, **gpu.timed(make(), 3)}
        for name, make in rooflines.programs(**TINY_DEVICE).items()
    ]
    assert [row["name"] for row in rows][::4] == ["matrix product 16", "memory, 1 MiB"]
    rate = {row["name"]: row["tflop_per_second"].median * row["ms"].median * 1e9 for row in rows}
    assert rate["matrix product 16"] == pytest.approx(2 * 2 * 16**3, rel=1e-6)
    ones = benchmark("measure").spread([1.0])
    part = {
        "ms": ones,
        "share": ones,
        "gflop": 1.0,
        "tflop_per_second": ones,
        "share_of_best_convolution": 0.5,
    }
    record = {
        "machine": {"devices": "a toy"},
        "rooflines": rows,
        "method": "SimClr",
        "batch_size": 512,
        "steps_in_a_program": 97,
        "crops_of": (256, 256, 224),
        "parts": [{"name": name, **part} for name in ("views", gpu.ENCODER)],
        **dict.fromkeys(
            ("step_ms", "images_per_second", "crops_ms", "knn_ms", "knn_representations_ms"), ones
        ),
        "pytorch": {
            "torch": "2",
            "torch_compile": "on",
            **dict.fromkeys(("ours", "theirs", "ratio"), ones),
        },
    }
    text = told(gpu.tables(record))
    for bar in (
        "at most 0.1: missed",
        "at least 0.4: met",
        "at most 10.0: met",
        "at least 1.5: missed",
    ):
        assert bar in text


@pytest.mark.full
def test_a_step_is_taken_apart(benchmark):
    gpu = benchmark("gpu")
    session = training.open_session(tiny_config("simclr", batch_size=64))._replace(mesh=mesh(1))
    sizes = gpu.Sizes(repeats=2, steps=2, crops=(2, 16, 12), **TINY_DEVICE)
    record = gpu.measure(session, sizes, say=lambda _: None)
    gflop = {part["name"]: part["gflop"] for part in record["parts"]}
    assert gflop["encoder and heads, forward"] < gflop[gpu.ENCODER] < gflop["whole step"]
    assert all(count > 0 for count in gflop.values())
    text = told(gpu.tables(record))
    assert "step, 2 in a program" in text and "two crops of 2 images at 12 pixels" in text


FAULTS = [
    (1, 1, 1),
    pytest.param(1, 5, 12, marks=pytest.mark.full),
    pytest.param(2, 5, 12, marks=pytest.mark.full),
]


@pytest.mark.parametrize("processes, rounds, epochs", FAULTS)
def test_a_run_that_is_killed_comes_to_the_same_bits(
    benchmark, monkeypatch, processes, rounds, epochs
):
    one_device = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    monkeypatch.setenv("XLA_FLAGS", " ".join(one_device))
    faults = benchmark("faults")
    monkeypatch.setattr(faults, "POLL_SECONDS", 0.05)  # which leaves the cores to the run
    record = faults.measure(faults.Options(rounds=rounds, epochs=epochs, processes=processes))
    assert sum(len(run["deaths"]) for run in record["runs"]) == rounds
    assert record["lost"] == 0, record["runs"]
    assert "lost, at most 0: met" in told([faults.table(record)])


def test_fuzzed_folders_and_commands_are_read_or_refused(benchmark, tmp_path):
    fuzz = benchmark("fuzz")
    record = fuzz.measure(fuzz.Options(folders=12, commands=12, processes=0), tmp_path)
    for result in record["results"].values():
        assert result["faults"] == []
    assert record["results"]["folders"]["refused"] and record["results"]["folders"]["read"]
    assert "at most 0: met" in told([fuzz.table(record)])


def test_figures_are_told_and_written(benchmark, tmp_path, capsys):
    measure = benchmark("measure")
    machine = {"cores": 2}
    record = {
        "machine": machine,
        "ms": measure.Spread(2.0, 1.0, 3.0),
        "rows": np.int64(7),
        "at": tmp_path,
    }
    out = tmp_path / "new" / "figures.json"
    measure.Output(out=out).tell(record, [rich.table.Table("another")])
    told = capsys.readouterr().out
    assert "cores" in told and "another" in told
    spread = {"median": 2.0, "low": 1.0, "high": 3.0}
    assert json.loads(out.read_text()) == {
        "machine": machine,
        "ms": spread,
        "rows": 7,
        "at": str(tmp_path),
    }
    assert not out.with_suffix(".png").exists()


def written(measure, record, plot, folder):
    pytest.importorskip("matplotlib")
    out = measure.Output(out=folder / "out" / "figures.json")
    out.check_plots()
    out.tell(record, [], plot)
    assert len(json.loads(out.out.read_text())["results"]) == len(record["results"])
    assert out.out.with_suffix(".png").stat().st_size > 0
