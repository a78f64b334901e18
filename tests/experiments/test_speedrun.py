"""The speedrun: runs stop and resume with the same figures, and their results become a table."""

import importlib
import itertools
import json
import pathlib

import numpy as np
import pytest
from distributed import mesh
from PIL import Image
from tiny import tiny_config

from jaxclr import training
from jaxclr.data import Data, load

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
FACTS = {"machine": {"devices": "a toy"}, "cache": "none", "pixels": "PNG"}


@pytest.fixture
def speedrun(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("speedrun_cifar10")
    opened = training.open_session
    monkeypatch.setattr(
        training, "open_session", lambda config: opened(config)._replace(mesh=mesh(1))
    )
    return module


@pytest.mark.full
def test_a_run_stops_and_goes_on_to_the_figures_of_one_that_did_not(speedrun, tmp_path):
    config = tiny_config("simclr", epochs=2, batch_size=128)

    def run(out, *time_is_up):
        answers = itertools.chain(time_is_up, itertools.repeat(False))
        how = {"say": print, "time_is_up": lambda: next(answers)}
        return speedrun.run_all(
            {"simclr-0": config}, tmp_path / out, speedrun.Options(), FACTS, **how
        )

    assert not run("stopped", True)  # before it began
    assert not run("stopped", False, True)  # after an epoch
    progress = json.loads(
        (tmp_path / "stopped" / "states" / "simclr-0" / "progress.json").read_text()
    )
    assert [line["epoch"] for line in progress["epochs"]] == [1] and progress["calls"] == 1
    assert run("stopped") and run("whole")
    assert run("stopped", True)  # nothing is left to do
    stopped, whole = (
        json.loads((tmp_path / out / "results" / "simclr-0.json").read_text())
        for out in ("stopped", "whole")
    )
    assert (stopped["calls"], whole["calls"]) == (2, 1)
    assert list(stopped["knn_by_epoch"]) == ["1", "2"] and stopped["knn"] > 0.1
    for figure in ("loss", "knn", "knn_by_epoch", "linear"):
        assert stopped[figure] == whole[figure], figure
    assert whole["seconds"] > whole["compile_seconds"] > 0
    assert not list((tmp_path / "stopped" / "states").iterdir())


def test_results_become_a_table(speedrun, tmp_path):
    (tmp_path / "results").mkdir()
    record = {
        "k": 200,
        "temperature": 0.1,
        "epochs": 20,
        "batch_size": 512,
        "compile_seconds": 9,
        **FACTS,
    }
    for method, seed, knn, calls in (
        ("simclr", 0, 0.8, 1),
        ("simclr", 1, 0.82, 2),
        ("sim_trace", 0, 0.7, 1),
    ):
        own = {"method": method, "seed": seed, "seconds": 100 * (seed + 1), "calls": calls}
        own |= {"knn": knn, "linear": knn + 0.05, "knn_by_epoch": {"10": knn - 0.1, "20": knn}}
        (tmp_path / "results" / f"{method}-{seed}.json").write_text(json.dumps({**record, **own}))
    text = speedrun.write_table(tmp_path)
    assert text == (tmp_path / "table.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if "|" in line
    ]
    assert rows[0][2:5] == ["kNN at 10", "kNN at 20", "kNN, last epoch"]
    assert [
        "simclr",
        "0 1",
        "71.00 ± 1.41",
        "81.00 ± 1.41",
        "81.00 ± 1.41",
        "86.00 ± 1.41",
        "150",
        "9",
    ] in rows
    assert (
        "- calls: 1, 2" in text
        and "- devices: a toy" in text
        and "- images were stored as: PNG" in text
    )


def test_configurations_are_those_of_the_recipes(speedrun):
    options = speedrun.Options()
    config = speedrun.configuration("sim_affinity_no_symmetry", 3, options)
    assert (config.method.symmetry_weight, config.seed, config.encoder.dtype) == (0, 3, "bfloat16")
    assert (config.epochs, config.batch_size, config.warmup_epochs) == (200, 512, 10)
    assert speedrun.configuration("sim_affinity", 0, options).method.symmetry_weight > 0


def test_packed_images_are_those_of_the_data_set(speedrun, tmp_path, monkeypatch):
    """Of a data set whose files are PNG, which loses nothing."""
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    for index, image in enumerate(images):
        folder = tmp_path / "images" / ("train" if index < 3 else "test") / str(index % 2)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    module = importlib.import_module("benchmarks.cifar10_npz")
    source = f"folder:{tmp_path / 'images'}"
    monkeypatch.setattr(module, "Data", lambda _, dir, streaming: Data(source, streaming=streaming))
    module.pack(tmp_path, tmp_path / "packed.npz")
    module.unpack(tmp_path / "packed.npz", tmp_path / "images.npz")
    assert module.pixels(tmp_path / "images.npz") == "PNG"
    one, other = load(Data(f"npz:{tmp_path / 'images.npz'}")), load(Data(source))
    for split in ("train", "test"):
        got, wanted = getattr(one, split), getattr(other, split)
        np.testing.assert_array_equal(got.examples, wanted.examples)
        np.testing.assert_array_equal(got.labels, wanted.labels)
