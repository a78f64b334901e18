"""Evaluation and embedding need a checkpoint and data, and nothing that only training needs."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import rich.console
from PIL import Image
from tiny import tiny_config

import jaxclr
from jaxclr import api
from jaxclr.data import Data, load
from jaxclr.errors import UserError
from jaxclr.runs.checkpoints import Checkpoints
from jaxclr.runs.folder import RunFolder
from jaxclr.training.session import open_session

SILENT = rich.console.Console(file=io.StringIO())


def draw(folder, *, per_class=12):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = rng.integers(128 * label, 128 * label + 100, (8, 8), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder with pictures/, and runs/first of them, given by a relative path."""
    folder = tmp_path_factory.mktemp("home")
    draw(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        session = open_session(tiny_config("simclr", data=Data("folder:pictures")))
        run = RunFolder(folder / "runs" / "first")
        # On the 8 devices here, neither batch could be trained with.
        run.create(dataclasses.replace(session.config, batch_size=12), overwrite=False)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(session.init_state(), 3)
    return folder


def test_paths_are_found_from_other_folders(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = json.loads((home / "runs/first/config.json").read_text())
    assert stored["data"]["source"] == "folder:pictures"
    assert stored["absolute"] == {"source": f"folder:{home}/pictures"}
    run = jaxclr.Run(home / "runs" / "first")
    assert run.config.data.source == f"folder:{home}/pictures"
    record = run.evaluate("knn", k=3, console=SILENT)
    assert (record["train_images"], record["test_images"]) == (19, 5)
    # Moved together, both are found by the relative path.
    shutil.copytree(home, tmp_path / "new", dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "new")
    (home / "pictures").rename(home / "gone")
    try:
        assert jaxclr.Run("runs/first").config.data.source == "folder:pictures"
        api.Run("runs/first", dataclasses.replace(run.config, data=Data("folder:pictures")))
        with pytest.raises(UserError, match="is a run of another configuration: data.source"):
            api.Run("runs/first", dataclasses.replace(run.config, data=Data("folder:other")))
    finally:
        (home / "gone").rename(home / "pictures")


def test_other_data_are_evaluated_without_the_runs_own(home, tmp_path):
    folder = shutil.copytree(home / "runs" / "first", tmp_path / "run")
    (folder / "evaluation.json").unlink(missing_ok=True)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace("pictures", "gone"))
    draw(tmp_path / "others")
    run, others = jaxclr.Run(folder), Data(f"folder:{tmp_path}/others")
    with pytest.raises(UserError, match="gone"):
        run.evaluate("knn", console=SILENT)
    run.evaluate("knn", data=others, k=3, console=SILENT)
    record = run.evaluate(data=others, baselines=False, console=SILENT)
    assert record["step"] == 3 and set(record["features"]) == {"trained"}
    written = json.loads((folder / "evaluation.json").read_text())
    assert set(written["protocols"]) == {f"knn {others.source}"}
    assert set(written) == {"protocols", "other_data"}  # not taken for the run's own
    assert written["other_data"][others.source].keys() == record.keys()


def test_the_untrained_network_is_that_of_training(home, monkeypatch):
    monkeypatch.chdir(home)
    run = jaxclr.Run("runs/first")
    record = run.evaluate("arc", views=2, console=SILENT)
    assert record["figures"]["ACR"] == record["figures"]["ACR untrained"]


def test_a_folder_is_embedded_whole_and_in_order(home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    run = jaxclr.Run("runs/first")
    names = sorted(str(path) for path in (home / "pictures").rglob("*.png"))
    assert run.embed(tmp_path / "all.npz", Data(f"folder:{home}/pictures")) == {"train": 24}
    with np.load(tmp_path / "all.npz") as found:
        assert found["names"].tolist() == names
    assert run.embed(tmp_path / "own.npz") == {"train": 19, "test": 5}


def test_runs_in_a_data_folder_are_left_out(home, tmp_path):
    folder = shutil.copytree(home / "pictures", tmp_path / "pictures")
    shutil.copytree(home / "runs", folder / "runs")
    shutil.copytree(home / "runs" / "first", folder / "cat" / "run")
    dataset = load(Data(f"folder:{folder}"))
    assert dataset.classes == ("cat", "dog") and dataset.train.size + dataset.test.size == 24
    (note,) = [note for note in dataset.notes if "runs" in note]
    assert note == f"Folders of runs are left out of '{folder}': run, runs."
    (folder / "runs" / "picture.png").touch()  # no longer nothing but runs
    with pytest.raises(UserError):
        load(Data(f"folder:{folder}"))


def test_a_run_goes_on_with_its_data_at_another_place(home, tmp_path, monkeypatch):
    draw(tmp_path / "before")
    config = tiny_config("simclr", data=Data(f"folder:{tmp_path}/before"))
    seen = []
    monkeypatch.setattr(api, "pretrain", lambda session, *_, **__: seen.append(session.config.data))
    run = api.train(config, tmp_path / "run", console=SILENT)
    (tmp_path / "before").rename(tmp_path / "after")
    with pytest.raises(UserError, match="before"):
        run.resume(console=SILENT)
    after = Data(f"folder:{tmp_path}/after")
    assert run.resume(data=after, console=SILENT).config.data == seen[-1]
    assert seen[-1] == dataclasses.replace(seen[0], source=after.source)
    jaxclr.Run(run.folder).resume(console=SILENT)  # from where they are now
    assert seen[-1].source == after.source
    with pytest.raises(UserError, match=r"data\.image_size is another"):
        run.resume(data=dataclasses.replace(after, image_size=4), console=SILENT)
    draw(tmp_path / "other", per_class=13)
    with pytest.raises(UserError, match="began with other data or code: train has 20 examples"):
        run.resume(data=Data(f"folder:{tmp_path}/other"), console=SILENT)
    assert jaxclr.Run(run.folder).config.data.source == after.source
