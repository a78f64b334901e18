"""What holds for every encoder and head: precision, synchronized norms, checks of images."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxclr.encoders import ENCODERS, Mlp, SmallConv, ViT
from jaxclr.encoders.resnet import BasicBlock, Bottleneck
from jaxclr.encoders.vit import ViTModule


def _build(name: str, dtype: str = "float32", axis_name: str | None = None) -> nn.Module:
    """Small modules, one of each kind, made of the parts that the large ones are made of."""
    match name:
        case "mlp":
            return Mlp(layers=2, hidden=8, out=4, last_norm=True).build(axis_name, dtype)
        case "small_conv":
            return SmallConv(widths=(4, 8), dtype=dtype).build(axis_name)
        case "basic_block":
            return BasicBlock(width=4, stride=2, dtype=dtype, axis_name=axis_name)
        case "bottleneck":
            return Bottleneck(width=4, stride=1, dtype=dtype, axis_name=axis_name)
        case "vit":
            return ViTModule(
                width=24, depth=1, heads=3, patch=4, frozen_patch_embedding=False, dtype=dtype
            )


KINDS = ("mlp", "small_conv", "basic_block", "bottleneck", "vit")


def _inputs(name: str, rows: int = 16) -> np.ndarray:
    shape = (rows, 6) if name == "mlp" else (rows, 8, 8, 3)
    return np.random.default_rng(0).normal(size=shape)


def _variables(module: nn.Module, x: jax.Array) -> dict:
    """Random variables, drawn by NumPy because XLA would take seconds to compile it."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        noise = rng.normal(size=leaf.shape)
        match path[-1].key:
            case "kernel":
                value = noise / np.sqrt(np.prod(leaf.shape[:-1]))
            case "scale" | "var":
                value = 1 + 0.1 * np.abs(noise)
            case _:
                value = 0.1 * noise
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, _initial_shapes(module, x))


def _initial_shapes(module: nn.Module, x: jax.Array) -> dict:
    return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, True), x)


@functools.partial(jax.jit, static_argnums=0)
def _train(module: nn.Module, variables: dict, x: jax.Array) -> tuple[jax.Array, dict]:
    return module.apply(variables, x, True, mutable=["batch_stats"])


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_computes_what_float32_does(name):
    x = jnp.asarray(_inputs(name), jnp.float32)
    single, half = _build(name), _build(name, "bfloat16")
    variables = _variables(single, x)
    want, _ = _train(single, variables, x)
    got, state = _train(half, variables, x)
    assert want.dtype == jnp.float32
    assert got.dtype == jnp.bfloat16
    scale = np.abs(want).max()
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.06 * scale)
    assert np.abs(got.astype(jnp.float32) - want).mean() < 0.01 * scale
    for tree in (_initial_shapes(half, x), state):
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", KINDS)
def test_float64_stays_float64(name):
    """No step of the whole computation is in float32, read from its jaxpr."""
    module = _build(name)
    variables = _variables(module, jnp.asarray(_inputs(name), jnp.float32))
    with jax.enable_x64(True):
        x = jnp.asarray(_inputs(name))
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        program, (out, state) = jax.make_jaxpr(
            functools.partial(_train, module), return_shape=True
        )(variables, x)
    assert out.dtype == jnp.float64
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(state))
    assert "f64[" in str(program) and "f32" not in str(program)


def test_head_promotes_a_narrower_representation():
    x = jnp.asarray(_inputs("mlp"), jnp.bfloat16)
    head = _build("mlp")
    out, _ = _train(head, _variables(head, x), x)
    assert out.dtype == jnp.float32


def _two_devices(how, module, variables, x):
    """Outputs, batch statistics and mean gradient with half of the rows on each of two devices."""

    def shard(variables, x):
        def share(params):
            out, state = _train(module, {**variables, "params": params}, x)
            return jnp.mean(jnp.sin(3 * out)), (out, state)

        grads, (out, state) = jax.grad(share, has_aux=True)(variables["params"])
        return out, state, jax.lax.pmean(grads, "batch")

    if how == "pmap":
        run = jax.pmap(shard, axis_name="batch", in_axes=(None, 0), devices=jax.devices()[:2])
        out, state, grads = jax.block_until_ready(run(variables, x.reshape(2, -1, *x.shape[1:])))
        state, grads = jax.tree.map(lambda leaf: leaf[0], (state, grads))
        return out.reshape(-1, *out.shape[2:]), state, grads
    mesh = jax.make_mesh(
        (2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2]
    )
    run = jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(P(), P("batch")),
        out_specs=(P("batch"), P(), P()),
        check_vma=False,
    )
    return jax.block_until_ready(jax.jit(run)(variables, x))


@pytest.mark.parametrize(
    "name, how",
    [("mlp", "shard_map"), ("mlp", "pmap"), ("small_conv", "shard_map"), ("basic_block", "pmap")],
)
def test_synchronised_norms(name, how):
    """Two devices give one device's values, statistics and gradient, in float64."""
    with jax.enable_x64(True):
        x = jnp.asarray(_inputs(name))
        variables = _variables(_build(name), x)
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

        @jax.jit
        def whole(params):
            def loss(params):
                out, state = _train(_build(name), {**variables, "params": params}, x)
                return jnp.mean(jnp.sin(3 * out)), (out, state)

            grads, (out, state) = jax.grad(loss, has_aux=True)(params)
            return out, state, grads

        want = jax.block_until_ready(whole(variables["params"]))
        got = _two_devices(how, _build(name, axis_name="batch"), variables, x)
        assert jax.tree.structure(got) == jax.tree.structure(want)
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)
        jax.tree.map(compare, jax.device_get(got), jax.device_get(want))


def test_evaluation_needs_no_axis():
    """A module built for an axis evaluates outside of it, and initializes there too."""
    x = jnp.asarray(_inputs("small_conv"), jnp.float32)
    module = _build("small_conv", axis_name="batch")
    variables = _variables(module, x)
    np.testing.assert_array_equal(
        jax.jit(lambda v: module.apply(v, x, False))(variables),
        jax.jit(lambda v: _build("small_conv").apply(v, x, False))(variables),
    )


@pytest.mark.parametrize(
    "name", [name for name, spec in ENCODERS.items() if not isinstance(spec, ViT)]
)  # test_vit.py has those
def test_named_encoders(name):
    module = ENCODERS[name].build("batch")
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    out, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x, False), images)
    assert out.ndim == 2 and out.shape[0] == 2 and out.dtype == jnp.float32


@pytest.mark.parametrize("name", ["resnet18", "vit_small", "small_conv"])
def test_images_are_checked(name):
    def init(*shape, dtype):
        images = jax.ShapeDtypeStruct(shape, dtype)
        return jax.eval_shape(
            lambda x: ENCODERS[name].build(None).init(jax.random.key(0), x, True), images
        )

    with pytest.raises(ValueError, match=r"images must be \[batch, .*, got shape \(32, 32, 3\)"):
        init(32, 32, 3, dtype=jnp.float32)
    with pytest.raises(TypeError, match="images must be floating, got uint8"):
        init(2, 32, 32, 3, dtype=jnp.uint8)
