"""The recipes: they load, are what their name and docstring say, and survive config.json."""

import ast
import dataclasses
import pathlib

import pytest

from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods import METHODS, MomentumEncoder
from jaxclr.runs.config import from_json, to_json
from jaxclr.runs.experiments import load_experiment
from jaxclr.runs.folder import RunFolder

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
SCRIPT = FOLDER / "speedrun_cifar10.py"  # no recipe: it runs those of cifar10.py
RECIPES = sorted(path for path in FOLDER.glob("*.py") if path != SCRIPT)
OWN = FOLDER / "margin.py"  # of a method that it defines itself
SHARED = [path for path in RECIPES if "_" not in path.stem and path != OWN]  # of any method


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_survives_json(path):
    config = load_experiment(path)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_docstring_states_the_command(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"\njaxclr train experiments/{path.name}" in docstring.replace("\n    ", "\n")


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path not in (*SHARED, OWN)], ids=lambda path: path.stem
)
def test_a_file_is_named_after_its_method(path):
    named = max((name for name in METHODS if path.stem.endswith(f"_{name}")), key=len)
    assert type(load_experiment(path).method) is METHODS[named]


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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_scale_depends_on_the_batch_size(path):
    method = load_experiment(path).method
    assert getattr(method, "symmetry_scale", "per_sample") == "per_sample"
    assert getattr(method, "logit_divisor", method.projector.out) == method.projector.out


@pytest.mark.parametrize("method", ["moco_v3", "sim_affinity", "sim_trace", "sim_whitening"])
def test_imagenet_heads_are_those_of_moco_v3(method):
    resnet, vit = (
        load_experiment(FOLDER / f"imagenet_{encoder}_{method}.py").method
        for encoder in ("resnet50", "vit_small")
    )
    assert resnet.projector == Mlp(layers=2, hidden=4096, out=256, last_norm=True)
    assert resnet.predictor == Mlp(layers=2, hidden=4096, out=256, last_norm=False)
    assert vit.projector == Mlp(layers=3, hidden=4096, out=256, last_norm=True)
    assert vit.predictor == Mlp(layers=2, hidden=4096, out=256, last_norm=True)
    momentum = MomentumEncoder(momentum=0.99, ramp=True, update="before_keys")
    assert resnet.target == vit.target == momentum


@pytest.mark.parametrize("encoder, layers", [("resnet50", 2), ("vit_small", 3)])
def test_plain_sim_trace_stays_plain(encoder, layers):
    plain = load_experiment(FOLDER / f"imagenet_{encoder}_sim_trace_plain.py").method
    assert plain.predictor is None
    assert plain.projector == Mlp(layers=layers, hidden=4096, out=256, last_norm=True)
    assert plain.target == METHODS["sim_trace_plain"]().target


@pytest.mark.parametrize("method", ["moco_v3", "sim_affinity"])
def test_imagenet_temperatures(method):
    temperatures = {
        encoder: load_experiment(FOLDER / f"imagenet_{encoder}_{method}.py").method.temperature
        for encoder in ("resnet50", "vit_small")
    }
    assert temperatures == {"resnet50": 1.0, "vit_small": 0.2}
