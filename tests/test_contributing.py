"""CONTRIBUTING.md's examples: each is built from a file outside the package, and works."""

import importlib.util
import inspect
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny import tiny_config, unlabeled

import jaxclr
from jaxclr.cli.definitions import loss_facts

TEXT = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(
    re.findall(r"^## An? (\w+)\n.*?```python\n(.*?)```", TEXT, re.MULTILINE | re.DOTALL)
)


@pytest.fixture
def example(request, tmp_path):
    """The module of an example, from a file of its own."""
    path = tmp_path / f"own_{request.param}.py"
    path.write_text(EXAMPLES[request.param])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)

    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


def test_all_five_are_there():
    assert set(EXAMPLES) == {"loss", "method", "encoder", "source", "protocol"}


@pytest.mark.parametrize("example", ["loss"], indirect=True)
def test_a_loss(example):
    """Equal to NumPy on one device, and the same on eight."""
    z1, z2 = np.random.default_rng(0).normal(size=(2, 16, 5)).astype(np.float32)
    u1, u2 = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2))
    a = u1 @ u2.T
    others = [np.log(np.sum(np.exp(np.delete(row, i)))) for i, row in enumerate(a)]
    wanted = np.mean(np.maximum(0, 0.5 + np.array(others) - np.diag(a)))
    np.testing.assert_allclose(example.hinge(z1, z2, margin=0.5), wanted, rtol=1e-6)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    share = lambda z1, z2: jax.lax.pmean(
        example.hinge(z1, z2, margin=0.5, axis_name="batch"), "batch"
    )
    mapped = jax.shard_map(share, mesh=mesh, in_specs=P("batch"), out_specs=P(), check_vma=False)
    np.testing.assert_allclose(jax.jit(mapped)(z1, z2), wanted, rtol=1e-6)
    assert loss_facts(inspect.getdoc(example.hinge)) == (
        "negatives",
        "B²D",
        "row sums over all columns",
        "1503.03832",
    )


@pytest.mark.parametrize("example", ["method"], indirect=True)
def test_a_method(example, tmp_path):
    method = example.AlignAndDecorrelate(weight=0.1).with_heads(hidden=12, out=8)
    config = tiny_config(method, data=unlabeled(tmp_path), epochs=10, log_every=5)
    run = jaxclr.train(config, out=tmp_path / "run")
    losses = run.metrics()["loss"]
    assert np.nanmin(losses) < losses[~np.isnan(losses)][0]
    assert type(jaxclr.Run(tmp_path / "run").config.method).__name__ == "AlignAndDecorrelate"
    with pytest.raises(jaxclr.UserError, match="method.weight must be at least 0, got -1"):
        example.AlignAndDecorrelate(weight=-1)


@pytest.mark.parametrize("example", ["encoder"], indirect=True)
def test_an_encoder(example):
    module = example.Perceptron(width=6).build(None)
    x = jnp.ones((3, 4, 4, 1))
    out, variables = module.init_with_output(jax.random.key(0), x, False)
    assert out.shape == (3, 6) and set(variables) == {"params", "batch_stats"}
    with pytest.raises(jaxclr.UserError, match="Perceptron.width must be at least 1, got 0"):
        example.Perceptron(width=0)


@pytest.mark.parametrize("example", ["source"], indirect=True)
def test_a_source(example, monkeypatch):
    monkeypatch.setitem(jaxclr.data.SOURCES, "bars", None)  # taken out again after the test
    jaxclr.data.register("bars", example.load)
    dataset = jaxclr.data.load(jaxclr.Data("bars:6"))
    assert dataset.train.examples.shape == (160, 6, 6, 1) and dataset.classes == ("row", "column")
    rows = dataset.train.examples[dataset.train.labels == 0]
    assert ((rows == 255).all(axis=2).sum(axis=(1, 2)) == 1).all()


@pytest.mark.parametrize("example", ["protocol"], indirect=True)
def test_a_protocol(example, tmp_path):
    jaxclr.train(tiny_config("simclr", epochs=1), out=tmp_path / "run")
    run = jaxclr.Run(tmp_path / "run")
    record = run.evaluate(example.NearestMean())
    assert 0.2 < record["figures"]["accuracy"]["mean"] <= 1
    assert "NearestMean" in (tmp_path / "run" / "evaluation.json").read_text()
