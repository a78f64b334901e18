"""A configuration survives JSON, and what is wrong with one is said."""

import dataclasses
import json
import pathlib

import pytest
from tiny import tiny_config

from jaxclr.augment import AUGMENTATIONS
from jaxclr.encoders import ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.methods import METHODS, Imported, MomentumEncoder
from jaxclr.runs.config import differences, from_json, to_json
from jaxclr.steps.optimizers import OPTIMIZERS


@pytest.mark.parametrize("method", METHODS)
def test_json_gives_the_configuration_back(method):
    for optimizer in OPTIMIZERS.values():
        config = tiny_config(method, optimizer=optimizer())
        assert from_json(to_json(config)) == config


WRONG = {
    "Config has no field 'epoch'. Did you mean 'epochs'": lambda c: c.update(epoch=3),
    "SimClr has no field 'temprature'. Did you mean 'temperature'": lambda c: c["method"].update(
        temprature=1
    ),
    "'SimKlr' is missing or names no type": lambda c: c["method"].update(type="SimKlr"),
    "method.temperature must be greater than 0, got 0": lambda c: c["method"].update(temperature=0),
    "data.source: 3 is not of type str": lambda c: c["data"].update(source=3),
    "epochs must be at least 1": lambda c: c.update(epochs=0),
    "batch_size: '12' is not of type int": lambda c: c.update(batch_size="12"),
    "mapper: vmap not in literal": lambda c: c.update(mapper="vmap"),
    "'method' is missing": lambda c: c.pop("method"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said(message):
    tree = json.loads(to_json(tiny_config("simclr")))
    WRONG[message](tree)
    with pytest.raises(UserError) as error:
        from_json(json.dumps(tree))
    assert message in str(error.value)


# What runs stored when heads and targets were fields of every method.
FORMER = {
    "simclr": {"predictor": None, "target": {"type": "Shared"}},
    "sim_trace_plain": {"predictor": None, "target": {"type": "Shared"}},
    "moco_v2": {
        "predictor": None,
        "target": {"type": "MomentumEncoder", "momentum": 0.9, "ramp": False},
    },
    "uni_grad": {"predictor": None, "target": {"type": "MomentumEncoder", "momentum": 0.9}},
}


@pytest.mark.parametrize("name", FORMER)
def test_a_run_of_before_is_read(name):
    config = tiny_config(name)
    tree = json.loads(to_json(config))
    del tree["jaxclr"]  # the version, which they did not store
    tree["method"].update(FORMER[name])
    target = config.method.target
    if isinstance(target, MomentumEncoder):
        target = MomentumEncoder(momentum=0.9, ramp=name == "uni_grad")
    method = from_json(json.dumps(tree)).method
    assert method.target == target and method.projector == config.method.projector


def test_an_import_of_before_is_read():
    imported = {"type": "Imported", "file": "weights.npz", "prefix": ""}
    tree = json.loads(to_json(tiny_config("simclr", augmentation=AUGMENTATIONS["digits"])))
    tree["augmentation"]["views"] = tree["augmentation"]["views"][:1]
    del tree["jaxclr"]
    heads = {
        "projector": dataclasses.asdict(Imported.projector),
        "predictor": None,
        "target": {"type": "Shared"},
    }
    tree["method"] = {**imported, **heads}
    assert from_json(json.dumps(tree)).method == Imported(file="weights.npz")


def test_a_predictor_that_nothing_would_read_is_refused():
    tree = json.loads(to_json(tiny_config("simclr")))
    tree["method"]["predictor"] = tree["method"]["projector"]
    with pytest.raises(UserError, match="SimClr has no field 'predictor'"):
        from_json(json.dumps(tree))


def test_no_json_is_said():
    with pytest.raises(UserError, match="not JSON"):
        from_json("{")


def test_differences_are_named():
    one, other = tiny_config("simclr"), tiny_config("simclr", epochs=3)
    other = tiny_config(METHODS["simclr"](temperature=0.3), epochs=3)
    assert differences(one, other) == {
        "epochs": "epochs: 2 is now 3",
        "method.temperature": "method.temperature: 0.1 is now 0.3",
    }
    assert differences(one, one) == {}


def test_a_whole_configuration_of_before_is_read():
    """Written by version 0.1.0 for `jaxclr train experiments/digits.py --method simclr`."""
    text = (pathlib.Path(__file__).parents[1] / "golden" / "config-0.1.json").read_text()
    config = from_json(text)
    assert type(config.method) is METHODS["simclr"] and config.data.mean == (0.305433688785187,)
    assert config.encoder.widths == (4, 8) and config.augmentation == AUGMENTATIONS["digits"]
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("encoder", [ResNet(), ViT(positions="learned"), ViT("base", patch=8)])
@pytest.mark.parametrize("remat", [False, True])
def test_encoders_of_before_are_read(encoder, remat):
    """Version 0.2 stored remat as a bool, and the fields of a ViT up to it."""
    tree = json.loads(to_json(tiny_config(encoder=encoder)))
    stored = tree["encoder"]
    for name in ("mlp", "layer_scale", "drop_path", "registers"):
        stored.pop(name, None)
    stored["remat"] = remat
    wanted = dataclasses.replace(encoder, remat="blocks" if remat else "none")
    assert from_json(json.dumps(tree)).encoder == wanted
