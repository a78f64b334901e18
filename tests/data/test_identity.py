"""The identity of data: what changed is named, and a run does not go on with other data."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from jaxclr import Run, pretraining
from jaxclr.data import Arrays, Data, identity, load
from jaxclr.data.identity import changes
from jaxclr.errors import UserError
from jaxclr.runs.folder import RunFolder
from jaxclr.training.session import open_session


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for index in range(40):
        image = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
        (folder / "ab"[index % 2]).mkdir(exist_ok=True)
        image.save(folder / "ab"[index % 2] / f"{index:02}.png")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "images")


def of(folder, **fields):
    data = Data(f"folder:{folder}", **fields)
    return identity.identity(load(data), data)


def remove(folder):
    (folder / "a" / "00.png").unlink()


def add(folder):
    shutil.copy(folder / "a" / "00.png", folder / "a" / "x.png")


def replace(folder):
    Image.new("L", (8, 8)).save(folder / "a" / "00.png")


def relabel(folder):
    (folder / "a" / "00.png").rename(folder / "b" / "00.png")


def rename_class(folder):
    (folder / "a").rename(folder / "c")


CHANGES = {
    remove: r"train has 31 examples instead of 32; missing: a/00\.png",
    add: r"test has 9 examples instead of 8; added: a/x\.png",
    replace: r"changed: a/00\.png",
    relabel: r"added: b/00\.png; missing: a/00\.png",
    rename_class: "class added: c; class missing: a; added: c/00.png, .* and 17 more; missing: a/",
}
FOLDERS = {
    remove: ["changed: a/"],
    relabel: ["changed: a/, b/"],
    rename_class: ["added: c/", "missing: a/"],
}


@pytest.mark.parametrize("streaming", ["never", "always"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_in_a_folder_is_named(folder, change, streaming):
    before = of(folder, streaming=streaming)
    change(folder)
    found = "; ".join(changes(before, of(folder, streaming=streaming)))
    assert re.match(CHANGES[change], found), found


@pytest.mark.parametrize("change", FOLDERS)
def test_of_many_files_the_folder_is_named(folder, change, monkeypatch):
    monkeypatch.setattr(identity, "MOST_FILES", 10)
    before = of(folder)
    assert list(before.parts) == ["a/", "b/"]
    change(folder)
    assert changes(before, of(folder))[-len(FOLDERS[change]) :] == FOLDERS[change]


def test_place_and_time_do_not_matter(folder, tmp_path, monkeypatch):
    before = of(folder)
    os.utime(folder / "a" / "00.png", (1, 1))
    shutil.move(folder, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert changes(before, of("elsewhere")) == []


def test_arrays_and_their_labels_are_compared():
    images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6) % 2
    of_arrays = lambda data: identity.identity(load(data), data)
    before = of_arrays(Arrays(images, labels))
    assert changes(before, of_arrays(Arrays(images.copy(), labels.copy()))) == []
    assert changes(before, of_arrays(Arrays(images + 1, labels))) == ["changed: train examples"]
    assert changes(before, of_arrays(Arrays(images, labels[::-1]))) == ["changed: train labels"]
    assert "missing: train labels" in changes(before, of_arrays(Arrays(images)))


def test_prepared_data_are_known_by_their_version():
    dataset = load(Data("digits"))._replace(version="digits/3.0.1")
    before = identity.identity(dataset, Data("tfds:digits"))
    assert before.parts == {"version": "digits/3.0.1"}
    now = identity.identity(dataset._replace(version="digits/3.0.2"), Data("tfds:digits"))
    assert changes(before, now) == ["changed: version"]


def test_code_that_is_not_copied_is_compared():
    before, now = (identity.Identity((), {}, {}, {"own.py": crc}) for crc in "12")
    assert changes(before, now) == ["code changed: own.py"]


def test_a_run_does_not_go_on_with_other_data(folder, tmp_path):
    config = tiny_config("simclr", data=Data(f"folder:{folder}", mean=(0.5,), std=(0.5,)))
    run = RunFolder(tmp_path / "run")
    session = open_session(config)

    def start():
        now = session._replace(dataset=load(config.data))
        pretraining.create_or_check(run, now, None, overwrite=False)

    start()
    start()
    replace(folder)
    for go_on in (start, Run(run.folder).resume):
        with pytest.raises(UserError, match="run began with other data or code: changed: a/00.png"):
            go_on()
    path = run.folder / "data.json"
    for damage in ("[]", "{", '{"classes": 1, "examples": {}, "parts": {}}', "[" * 9999):
        path.write_text(damage)
        with pytest.raises(UserError, match="data.json.* delete it to go on without"):
            start()
    path.unlink()  # as runs of version 0.1 are
    start()


def test_images_that_would_be_streamed_now_are_named(folder):
    (found,) = changes(of(folder), of(folder, memory_limit=1e-9))
    assert found.startswith("images are streamed, not in memory")
    assert changes(dataclasses.replace(of(folder), streamed=None), of(folder)) == []
