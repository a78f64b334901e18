"""The recipes: they load, are what their docstring and table say, and survive config.json."""

import ast
import dataclasses
import pathlib
import runpy

import pytest

from jaxclr.errors import UserError
from jaxclr.methods import METHODS
from jaxclr.runs.config import from_json, to_json
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
SHARED = [
    FOLDER / f"{name}.py" for name in ("cifar10", "digits", "imagenet", "imagenet_vit_small")
]  # of any method
OWN = FOLDER / "margin.py"  # of a method that it defines itself
RECIPES = [*SHARED, OWN]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_survives_json(path):
    config = load_experiment(path)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_docstring_states_the_command(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"\njaxclr train experiments/{path.name}" in docstring.replace("\n    ", "\n")


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
def test_a_file_shows_its_recipes(path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(path.parent)  # as Python does for a script
    recipes = runpy.run_path(str(path), run_name="__main__")["RECIPES"]
    shown = capsys.readouterr().out
    rows = {
        cells[0]: cells[1:]
        for line in shown.splitlines()
        if len(cells := line.replace("│", " ").split()) > 4
    }
    for name in METHODS:
        config = load_experiment(path, method=name)
        kind, rate, views = (
            type(config.optimizer).__name__,
            config.optimizer.learning_rate,
            config.augmentation.views,
        )
        measured = f"{recipes[name].time} {recipes[name].accuracy}".split()
        assert rows[name] == [kind, f"{rate:g}", str(len(views)), *measured]


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", METHODS)
def test_a_shared_recipe_takes_any_method(path, method):
    config = load_experiment(path, method=method)
    assert type(config.method) is METHODS[method]
    assert from_json(to_json(config)) == config


def test_a_run_keeps_the_source_of_its_own_method(tmp_path):
    with pytest.raises(UserError, match="margin.py takes no method"):
        load_experiment(OWN, method="simclr")
    config = load_experiment(OWN)
    run = RunFolder(tmp_path / "run")
    run.create(config, overwrite=False)
    read = run.config().method
    assert type(read).__name__ == "Margin" and type(read) is not type(config.method)
    assert dataclasses.asdict(read) == dataclasses.asdict(config.method)


@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", ["sim_affinity", "sim_whitening", "sim_whitening_running"])
def test_no_scale_depends_on_the_batch_size(path, method):
    method = load_experiment(path, method=method).method
    assert method.symmetry_scale == "per_sample"
    assert getattr(method, "logit_divisor", method.projector.out) == method.projector.out
