import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.encoders import Mlp, SideBySide
from jaxclr.errors import UserError


def _batch(width=5):
    return jax.random.normal(jax.random.key(1), (16, width))


@functools.partial(jax.jit, static_argnums=0)
def _start(module, x):
    """The output in training, the statistics after it, and the variables before."""
    variables = module.init(jax.random.key(0), x, True)
    out, state = module.apply(variables, x, True, mutable=["batch_stats"])
    return out, state.get("batch_stats", {}), variables


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("last_norm", [False, True])
def test_layers(layers, last_norm):
    module = Mlp(layers=layers, hidden=7, out=3, last_norm=last_norm).build(None)
    out, _, variables = jax.eval_shape(functools.partial(_start, module), _batch())
    widths = [5, *[7] * (layers - 1), 3]
    want = {f"linear_{i}": (widths[i], widths[i + 1]) for i in range(layers)}
    params = variables["params"]
    assert {n: params[n]["kernel"].shape for n in params if n.startswith("linear")} == want
    assert all(set(params[name]) == {"kernel"} for name in want)
    norms = {f"norm_{i}" for i in range(layers - 1)}
    assert set(params) == set(want) | norms
    assert all(set(params[name]) == {"scale", "bias"} for name in norms)
    with_last = norms | ({f"norm_{layers - 1}"} if last_norm else set())
    assert set(variables.get("batch_stats", {})) == with_last
    assert out.shape == (16, 3)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("last", ["none", "scale", "both", None])
def test_biases_are_where_no_norm_follows(norm, last):
    """None is no last norm."""
    affine = {} if last is None else {"last_norm": True, "last_affine": last}
    module = Mlp(layers=3, hidden=7, out=3, norm=norm, bias=True, **affine).build(None)
    params = jax.eval_shape(functools.partial(_start, module), _batch())[2]["params"]
    found = {name: set(tree) for name, tree in params.items()}
    biased, hidden = {"kernel", "bias"}, {"kernel"} if norm else {"kernel", "bias"}
    want = {"linear_0": hidden, "linear_1": hidden}
    want["linear_2"] = biased if last is None else {"kernel"}
    if norm:
        want |= {"norm_0": {"scale", "bias"}, "norm_1": {"scale", "bias"}}
    if last in ("scale", "both"):
        want["norm_2"] = {"scale", "bias"} if last == "both" else {"scale"}
    assert found == want


def test_module_is_its_definition():
    module = Mlp(layers=2, hidden=7, out=3, last_norm=True).build(None)
    x = _batch()
    out, _, variables = _start(module, x)

    def norm(y):
        return (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)

    params = jax.tree.map(np.asarray, variables["params"])
    y = np.maximum(norm(np.asarray(x) @ params["linear_0"]["kernel"]), 0)
    want = norm(y @ params["linear_1"]["kernel"])
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-4)


def test_running_statistics_move_by_a_tenth():
    module = Mlp(layers=1, out=3, last_norm=True).build(None)
    x = _batch()
    _, stats, variables = _start(module, x)
    y = np.asarray(x) @ np.asarray(variables["params"]["linear_0"]["kernel"])
    stats = stats["norm_0"]
    np.testing.assert_allclose(stats["mean"], 0.1 * y.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * y.var(0), rtol=1e-4)


def test_linear_starts_as_pytorchs():
    params = _start(Mlp(hidden=100, out=50, bias=True).build(None), _batch(64))[2]["params"]
    for name, leaf, fan_in in (
        ("linear_0", "kernel", 64),
        ("linear_1", "kernel", 100),
        ("linear_1", "bias", 100),
    ):
        largest = np.abs(params[name][leaf]).max()
        assert (
            (0.98 if leaf == "kernel" else 0.8) / np.sqrt(fan_in) < largest <= 1 / np.sqrt(fan_in)
        )


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"layers": 0}, "Mlp.layers must be at least 1, got 0"),
        ({"hidden": -4}, "Mlp.hidden must be at least 1, got -4"),
        ({"out": 2.5}, "Mlp.out must be a whole number, got 2.5"),
        ({"last_norm": "yes"}, "Mlp.last_norm must be True or False, got 'yes'"),
        ({"last_affine": "scale"}, "Mlp.last_affine is 'scale' without a last norm"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(UserError, match=message):
        Mlp(**fields)


def test_bad_inputs():
    with pytest.raises(UserError, match="dtype must be 'float32' or 'bfloat16', got 'float16'"):
        Mlp().build(None, "float16")
    with pytest.raises(ValueError, match=r"x must be \[batch, features\], got shape \(2, 3, 4\)"):
        Mlp().build(None).init(jax.random.key(0), jnp.zeros((2, 3, 4)), True)


def test_heads_side_by_side_are_independent():
    heads = tuple(Mlp(layers=2, hidden=7, out=3).build(None) for _ in range(2))
    x = _batch()
    out, _, variables = _start(SideBySide(heads), x)
    assert out.shape == (16, 6)
    for index, head in enumerate(heads):
        own = {name: tree[f"heads_{index}"] for name, tree in variables.items()}
        alone, _ = head.apply(own, x, True, mutable=["batch_stats"])
        np.testing.assert_allclose(out[:, 3 * index : 3 * index + 3], alone, atol=1e-6)
    assert not np.allclose(out[:, :3], out[:, 3:])
