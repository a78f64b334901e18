"""Parts of a user's own: what a run remembers of them, reads back, and refuses."""

import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from tiny import tiny_config

from jaxclr import errors
from jaxclr.augment import Augmentation
from jaxclr.data import Arrays
from jaxclr.encoders import Nnx
from jaxclr.methods import SimClr
from jaxclr.paths import cache_folder
from jaxclr.runs import parts, trust
from jaxclr.runs.experiments import Experiment, load_experiment
from jaxclr.runs.folder import RunFolder

OWN = '''
import dataclasses
import jaxclr
from jaxclr.methods import SimClr
{imports}

def flipped(keys, batch):
    return batch.astype("float32") / 255

@dataclasses.dataclass(frozen=True)
class Colder(SimClr):
    temperature: float = 0.25

@dataclasses.dataclass(frozen=True)
class Other(SimClr):
    """A second class in the same file."""

    factor: float = 2.0

    def objective(self, out, state, axis_name):
        return self.factor * super().objective(out, state, axis_name)

def config(method="own"):
    return jaxclr.Config(
        method={method}().with_heads(hidden=12, out=8),
        encoder=jaxclr.encoders.SmallConv(widths=(4, 8)),
        data={data},
        augmentation=jaxclr.augment.Augmentation(views=(flipped, flipped)),
        epochs=2, batch_size=16, warmup_epochs=0.0,
    )
'''
DIGITS = 'jaxclr.Data("digits", mean=(0.3,), std=(0.4,))'
ARRAYS = "jaxclr.data.Arrays(np.arange(32 * 64, dtype=np.uint8).reshape(32, 8, 8, 1))"


def experiment(folder, *, method="Other", imports="", data=DIGITS, name="own.py"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(OWN.format(method=method, imports=imports, data=data))
    return path


def created(path, run):
    folder = RunFolder(run)
    folder.create(load_experiment(path), overwrite=False, experiment=Experiment(path, None))
    return folder


@pytest.mark.parametrize("method", ["Colder", "Other"])
def test_classes_of_a_file_are_read_back(tmp_path, method):
    path = experiment(tmp_path / "project", method=method)
    folder = created(path, tmp_path / "run")
    assert [*folder.sources()] == ["parts/own.py"]
    path.unlink()
    read = folder.config()
    assert type(read.method).__name__ == method and read.method.projector.out == 8
    assert read.augmentation.views[0].__name__ == "flipped"
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["method"]["type"]
        == f"parts/own.py:{method}"
    )


def test_a_subclass_of_ours_copies_its_own_file(tmp_path):
    """A subclass that changes a default alone has no code of its own but its class."""
    folder = created(experiment(tmp_path / "project", method="Colder"), tmp_path / "run")
    assert b"class Colder" in folder.sources()["parts/own.py"]
    assert folder.config().method.temperature == 0.25


def test_neighbours_travel_with_a_file(tmp_path):
    project = tmp_path / "project"
    (project / "package").mkdir(parents=True)
    (project / "package" / "__init__.py").write_text("FACTOR = 3.0\n")
    (project / "neighbour.py").write_text("from package import FACTOR\n")
    (project / "stranger.py").write_text("raise RuntimeError\n")
    path = experiment(
        project, imports="from neighbour import FACTOR", method="lambda: Other(factor=FACTOR)"
    )
    text = path.read_text().replace("lambda: Other(factor=FACTOR)()", "Other(factor=FACTOR)")
    path.write_text(text)
    folder = created(path, tmp_path / "run")
    assert sorted(folder.sources()) == [
        "parts/neighbour.py",
        "parts/own.py",
        "parts/package/__init__.py",
    ]
    code = (
        "from jaxclr.runs.folder import RunFolder; import pathlib; "
        f"print(RunFolder(pathlib.Path({str(tmp_path / 'run')!r})).config().method.factor)"
    )
    for source in project.rglob("*.py"):
        source.unlink()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "3.0\n", done.stderr
    assert not {"neighbour", "package"} & set(sys.modules)


def test_what_only_the_experiment_can_make_is_made_by_its_copy(tmp_path):
    path = experiment(tmp_path / "project", imports="import numpy as np", data=ARRAYS)
    folder = created(path, tmp_path / "run")
    assert "session" in json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    path.unlink()
    assert folder.config().data.size == 32


def test_a_class_of_an_installed_package_is_imported(tmp_path, monkeypatch):
    """Nothing is copied of what any program of the environment can import."""
    module = importlib.import_module("optax")
    assert parts.locate(module.adam).startswith("optax")
    config = tiny_config("simclr", optimizer=module.adam)
    folder = RunFolder(tmp_path / "run")
    folder.create(config, overwrite=False)
    assert folder.sources() == {} and folder.config().optimizer is module.adam


def test_code_that_is_not_copied_has_a_checksum(tmp_path, monkeypatch):
    """An edited loss is noticed in a package that is installed in place, and in a session."""
    optax = importlib.import_module("optax")
    assert parts.checksums(tiny_config("simclr", optimizer=optax.adam)) == {}
    package = tmp_path / "mypackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("def optimizer(schedule): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(parts, "_distributions", lambda: frozenset({"mypackage"}))
    config = tiny_config("simclr", optimizer=importlib.import_module("mypackage.losses").optimizer)
    before = parts.checksums(config)
    assert set(before) == {"mypackage/__init__.py", "mypackage/losses.py"}
    (package / "losses.py").write_text("def optimizer(schedule): pass\n")
    assert parts.checksums(config)["mypackage/losses.py"] != before["mypackage/losses.py"]

    one = parts.checksums(tiny_config("simclr", optimizer=lambda schedule: None))
    other = parts.checksums(tiny_config("simclr", optimizer=lambda schedule: 1))
    assert one.keys() == other.keys() and one != other


OF_A_CELL = """
import dataclasses
from jaxclr.methods import SimClr

@dataclasses.dataclass(frozen=True)
class OfACell(SimClr):
    temperature: float = 0.3
"""


def session_parts():
    notebook = types.ModuleType("__main__")
    exec(OF_A_CELL, notebook.__dict__)

    def drawn(keys, batch):
        return batch

    exec("class Cell:\n    def build(self, axis_name):\n        return None\n", notebook.__dict__)
    return {
        "<lambda>": {"optimizer": lambda schedule: None},
        "views.0: session_parts.<locals>.drawn": {"augmentation": Augmentation(views=(drawn,) * 2)},
        "OfACell": {"method": notebook.OfACell().with_heads(hidden=12, out=8)},
        "Cell": {"encoder": notebook.Cell()},
        "factory: ": {"encoder": Nnx(lambda rngs: None)},
        "Arrays of uint8 [20, 8, 8, 1], digest": {
            "data": Arrays(np.zeros((20, 8, 8, 1), np.uint8))
        },
    }


@pytest.mark.parametrize("told", session_parts())
def test_what_only_a_session_has_is_said_and_taken_from_it(tmp_path, told):
    config = dataclasses.replace(tiny_config("simclr"), **session_parts()[told])
    RunFolder(tmp_path / "run").create(config, overwrite=False)
    with pytest.raises(errors.UserError, match=r"jaxclr.Run\(folder, config=config\)") as refused:
        RunFolder(tmp_path / "run").config()
    assert told.strip(": ") in str(refused.value)
    assert RunFolder(tmp_path / "run", session=config).config() == config
    other = tiny_config(
        "simclr", data=Arrays(np.ones((20, 8, 8, 1), np.uint8)), encoder=Other(), optimizer=len
    )
    with pytest.raises(errors.UserError, match="was made with another"):
        RunFolder(tmp_path / "run", session=other).config()


class Other:
    def build(self, axis_name):
        return None


def test_code_of_another_user_is_asked_for(tmp_path, monkeypatch):
    folder = created(experiment(tmp_path / "project"), tmp_path / "run")
    monkeypatch.setenv("JAXCLR_CACHE", str(tmp_path / "another user"))
    with pytest.raises(
        errors.UserError, match="parts/own.py.*was not started by this user.*--trust"
    ):
        folder.config()
    assert type(RunFolder(folder.folder, trust=True).config().method).__name__ == "Other"


@pytest.mark.parametrize("name", ["parts/own.py", "config.json", "parts/new.py"])
def test_code_that_was_changed_is_not_run(tmp_path, name):
    folder = created(experiment(tmp_path / "project"), tmp_path / "run")
    path = folder.folder / name
    path.write_text((path.read_text() if path.exists() else "") + "\n ")
    with pytest.raises(errors.UserError, match="--trust"):
        folder.config()


@pytest.mark.parametrize("named", ["os:system", "subprocess:Popen"])
def test_config_json_names_code_only_if_it_is_trusted(tmp_path, named):
    RunFolder(tmp_path / "run").create(tiny_config("simclr"), overwrite=False)
    path = tmp_path / "run" / "config.json"
    tree = json.loads(path.read_text())
    tree["optimizer"] = {"type": named, "args": ["touch", str(tmp_path / "touched")]}
    path.write_text(json.dumps(tree))
    with pytest.raises(errors.UserError, match="--trust"):
        RunFolder(tmp_path / "run").config()
    with pytest.raises(errors.UserError, match="is not a dataclass"):
        RunFolder(tmp_path / "run", trust=True).config()
    assert not (tmp_path / "touched").exists()


def test_a_key_is_secret():
    assert trust.signature(b"", {}) is not None
    assert (cache_folder() / "key").stat().st_mode & 0o077 == 0


def test_an_own_method_of_before_is_read_back(tmp_path):
    """Runs of jaxclr 0.1 have the source of their method in method.py, and its class by name."""
    run = tmp_path / "run"
    RunFolder(run).create(tiny_config("simclr"), overwrite=False)
    tree = json.loads((run / "config.json").read_text())
    del tree["jaxclr"]
    tree["method"]["type"] = "Other"
    tree["method"]["factor"] = 3.0
    (run / "config.json").write_text(json.dumps(tree))
    (run / "method.py").write_text(OWN.format(method="Other", imports="", data=DIGITS))
    with pytest.raises(errors.UserError, match="method.py.*--trust"):
        RunFolder(run).config()
    assert RunFolder(run, trust=True).config().method.factor == 3.0


def test_a_file_that_trains_when_it_is_imported_is_refused(tmp_path):
    path = experiment(tmp_path / "project")
    folder = created(path, tmp_path / "run")
    source = folder.folder / "parts" / "own.py"
    source.write_text(source.read_text() + '\njaxclr.train(config(), out="elsewhere")\n')
    with pytest.raises(errors.UserError, match='under `if __name__ == "__main__":`'):
        RunFolder(folder.folder, trust=True).config()


def test_two_files_of_one_name_are_refused(tmp_path):
    one = load_experiment(experiment(tmp_path / "one"))
    other = load_experiment(experiment(tmp_path / "other", imports="# another"))
    mixed = dataclasses.replace(one, augmentation=other.augmentation)
    with pytest.raises(errors.UserError, match="are named own.py"):
        RunFolder(tmp_path / "run").create(mixed, overwrite=False)


def test_views_are_functions():
    with pytest.raises(
        errors.UserError, match=r"view 2 must be a function of \(keys, batch\), got int"
    ):
        Augmentation(views=(len, 3))
    assert pathlib.Path(__file__).name in parts.locate(test_views_are_functions)
    assert parts.locate(SimClr) == "SimClr"
