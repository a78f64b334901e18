"""The benchmarks run from end to end and tell what they promise; how fast or small anything is, they tell and no test does."""

import importlib
import json
import os
import pathlib

import pytest
import rich.console

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
    "symmetric_loss": (16,),
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
    assert len(record["results"]) == 2 * 3 * len(rows) * len(devices)
    for result in record["results"]:
        ring = result["implementation"] == "ring"
        assert ("collective_permute" in result["collectives"]) == ring
        assert ("all_gather" in result["collectives"]) == (not ring)
    assert f"info_nce, D = 256, devices: {devices[-1]}" in told(memory.tables(record))
    written(benchmark("measure"), record, memory.plot, tmp_path)


def test_input_is_measured(benchmark):
    input_ = benchmark("input")
    sizes = input_.Sizes(
        images=8, width=64, height=48, view=16, batch=4, rounds=2, listed=200, workers=0, epochs=2
    )
    record = input_.measure(sizes)
    assert record["memory"]["growth"] >= 1 and len(record["memory"]["mib"]) == 2
    text = told(input_.tables(record))
    assert "s to list 200 files" in text and "at most 20: " in text


def test_neighbours_are_those_of_scikit_learn(benchmark):
    knn = benchmark("knn")
    record = knn.measure(knn.Options(train=2000, test=100, width=16))
    assert record["agreement"] > 0.98 and record["mib_above_features"] >= 0
    assert "20 neighbours of 100 rows among 2,000, D = 16" in told(knn.tables(record))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_run_that_is_killed_comes_to_the_same_bits(benchmark, monkeypatch, processes):
    one_device = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    monkeypatch.setenv("XLA_FLAGS", " ".join(one_device))
    faults = benchmark("faults")
    record = faults.measure(faults.Options(rounds=5, epochs=12, processes=processes))
    assert sum(len(run["deaths"]) for run in record["runs"]) == 5
    assert record["lost"] == 0, record["runs"]
    assert "lost, at most 0: met" in told([faults.table(record)])


def written(measure, record, plot, folder):
    pytest.importorskip("matplotlib")
    measure.save(record, plot(record), folder / "out", "figures")
    read = json.loads((folder / "out" / "figures.json").read_text())
    assert len(read["results"]) == len(record["results"])
    assert (folder / "out" / "figures.png").stat().st_size > 0
