"""`jaxclr list` reads definitions from their source: it says what the imported ones say."""

import ast
import inspect
import pathlib
import re

import pytest

from jaxclr.cli import definitions
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
