"""`jaxclr list` reads definitions from their source: it says what the imported ones say."""

import ast
import dataclasses
import inspect
import json
import pathlib
import re

import pytest

from jaxclr import cli, losses
from jaxclr.augment import AUGMENTATIONS
from jaxclr.cli import definitions, listing
from jaxclr.data import SOURCES
from jaxclr.encoders import ENCODERS
from jaxclr.evaluation.protocols import PROTOCOLS
from jaxclr.methods import METHODS
from jaxclr.steps.optimizers import OPTIMIZERS

TABLES = {
    "METHODS": ("methods/__init__.py", "methods", METHODS),
    "OPTIMIZERS": ("steps/optimizers.py", "steps", OPTIMIZERS),
    "PROTOCOLS": ("evaluation/protocols/__init__.py", "evaluation/protocols", PROTOCOLS),
}


@pytest.mark.parametrize("name", TABLES)
def test_classes_are_those_that_are_imported(name):
    file, folder, imported = TABLES[name]
    found = definitions.table(file, name)
    assert list(found) == list(imported)
    for key, expression in found.items():
        kind = definitions.definitions(folder)[ast.unparse(expression)]
        assert kind.name == imported[key].__name__
        assert definitions.summary(kind) == inspect.getdoc(imported[key]).splitlines()[0]


@pytest.mark.parametrize("name", METHODS)
def test_needs_of_a_method_are_those_of_its_class(name):
    method = definitions.definitions("methods")[METHODS[name].__name__]
    for attribute in ("views", "more_views", "needs_labels"):
        found = definitions.attribute("methods", method, attribute)
        assert found == getattr(METHODS[name], attribute)


def test_encoders_and_sources_are_those_that_are_imported():
    assert list(definitions.table("encoders/__init__.py", "ENCODERS")) == list(ENCODERS)
    assert set(definitions.table("data/source_options.py", "SOURCES")) <= set(SOURCES)


def test_the_table_of_families_shows_every_method():
    families = (pathlib.Path(__file__).parents[1] / "docs" / "families.md").read_text()
    assert set(re.findall(r"`(\w+)`", families)) == METHODS.keys()


def test_the_readme_counts_losses_and_methods():
    readme = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
    assert f"{len(definitions.public_losses())} losses, {len(METHODS)} methods" in readme


def listed(capsys, *arguments):
    """What `jaxclr list` prints."""
    cli.main(["list", *arguments])
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def everything():
    """What `jaxclr list --json` prints."""
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("jaxclr.cli.listing.print_text", lambda _, text, **__: printed.append(text))
        cli.main(["list", "--json"])
    return json.loads(printed[0])


KINDS = {
    "methods": METHODS,
    "losses": definitions.public_losses(),
    "encoders": ENCODERS,
    "augmentations": AUGMENTATIONS,
    "optimizers": OPTIMIZERS,
    "protocols": PROTOCOLS,
    "data": ("digits", "folder", "hf", "npz", "tfds", "wds"),
}


@pytest.mark.parametrize("width", (80, 120))
def test_lists_have_all_names_and_fit(width, capsys, monkeypatch, everything):
    monkeypatch.setenv("COLUMNS", str(width))
    for kind, names in KINDS.items():
        printed = [listed(capsys, kind).splitlines(), *details(kind, everything[kind], width)]
        assert {*names} <= {line.split()[0] for line in printed[0] if line.strip()}
        for line in (line for lines in printed for line in lines):
            assert len(line) <= width and not set("\x1b…") & set(line)
    words = listed(capsys).replace(",", "").split()
    assert {name for names in KINDS.values() for name in names} <= {*words}


def details(kind, entries, width):
    return [listing.detail(name, listing.LISTS[kind], entries[name], width) for name in entries]


def test_json_has_the_entries_of_every_list(capsys, everything):
    assert list(everything) == list(KINDS)
    for kind, names in KINDS.items():
        assert everything[kind].keys() == {*names}
        assert all(entry["summary"] and entry["use"] for entry in everything[kind].values())
    byol = json.loads(listed(capsys, "methods", "byol", "--json"))
    assert byol == {"byol": everything["methods"]["byol"]}
    assert json.loads(listed(capsys, "optimizers", "--json")) == everything["optimizers"]


def agrees(written, value):
    """Whether a default, as written, is a value; True for what is not a literal."""
    try:
        return ast.literal_eval(written) == value
    except ValueError:
        return True


@pytest.mark.parametrize("name", definitions.public_losses())
def test_arguments_of_a_loss_are_those_of_the_function(name, everything):
    entry = everything["losses"][name]
    parameters = inspect.signature(getattr(losses, name)).parameters
    assert list(entry["arguments"]) == list(parameters)
    for key, argument in entry["arguments"].items():
        default = parameters[key].default
        assert argument["meaning"]
        if argument["default"] is None:
            assert default is inspect.Parameter.empty
        else:
            assert agrees(argument["default"], default)
    assert {*entry.get("methods", ())} <= {*METHODS}


SETTINGS = {
    **{f"methods {name}": kind for name, kind in METHODS.items()},
    **{f"encoders {name}": encoder for name, encoder in ENCODERS.items()},
    **{f"optimizers {name}": kind for name, kind in OPTIMIZERS.items()},
    **{f"protocols {name}": kind for name, kind in PROTOCOLS.items()},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_options_are_the_fields_of_the_class(name, everything):
    kind, _, key = name.partition(" ")
    arguments = everything[kind][key].get("arguments", {})
    assert arguments.keys() == {field.name for field in dataclasses.fields(SETTINGS[name])}
    for field in dataclasses.fields(SETTINGS[name]):
        found = arguments[field.name]
        assert found["meaning"]
        if isinstance(SETTINGS[name], type):
            assert agrees(found["default"], field.default)


def test_one_loss_is_shown_with_its_equation_arguments_and_paper(capsys):
    shown = " ".join(listed(capsys, "losses", "sim_trace").split())
    for words in (
        r"\operatorname{tr}",
        "Needs two views",
        "Cost BD² + D³",
        "Methods sim_trace, sim_trace_plain",
        "https://arxiv.org/abs/2211.14516",
        "eps = 0.01 added to the diagonal",
        ">>> round(float(losses.sim_trace(q, k)), 2)",
    ):
        assert words in shown
    shown = " ".join(listed(capsys, "methods", "byol").split())
    assert "Losses byol" in shown and "projector = Mlp(layers=2, hidden=4096, out=256)" in shown
    assert "heads = 6" in listed(capsys, "encoders", "dinov2_small")
