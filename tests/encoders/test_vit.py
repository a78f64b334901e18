import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.encoders import ENCODERS, ViT
from jaxclr.encoders.vit import Block, ViTModule, drop_paths, patches, sincos_positions
from jaxclr.errors import UserError

_tiny = functools.partial(
    ViTModule,
    width=24,
    depth=2,
    heads=3,
    patch=4,
    frozen_patch_embedding=False,
    dtype="float32",
)


@functools.partial(jax.jit, static_argnums=0)
def _params(module, images):
    return module.init(jax.random.key(0, impl="unsafe_rbg"), images, True)["params"]


# Parameters and features: of MoCo v3's small and base without positions, of timm's
# vit_large_patch16_224 and vit_huge_patch14_224 without classifier and positions, and of DINOv2's
# for images of 518 pixels without mask token; vit_giant has no positions or layer scales.
PUBLISHED = {
    "vit_small": (21_590_016, 384),
    "vit_base": (85_647_360, 768),
    "vit_large": (303_301_632 - 197 * 1024, 1024),
    "vit_huge": (630_764_800 - 257 * 1280, 1280),
    "vit_giant": (1_136_480_768 - (1370 + 1) * 1536 - 2 * 40 * 1536, 1536),
    "dinov2_small": (22_056_576 - 384, 384),
    "dinov2_base": (86_580_480 - 768, 768),
    "dinov2_large": (304_368_640 - 1024, 1024),
    "dinov2_giant": (1_136_480_768 - 1536, 1536),
}


@pytest.mark.parametrize("name", [name for name, spec in ENCODERS.items() if isinstance(spec, ViT)])
def test_size_is_the_published_one(name):
    parameters, features = PUBLISHED[name]
    spec = ENCODERS[name]
    side = 518 if spec.positions == "learned" else 224
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: spec.build(None).init_with_output(jax.random.key(0), x, True), images
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters
    assert set(variables) == {"params"}
    assert out.shape == (2, features)


def test_fields_default_to_the_size():
    large, giant = ViT("large"), ViT(size="giant", patch=16)
    assert (large.heads, large.patch, large.mlp) == (16, 16, "gelu")
    assert (giant.heads, giant.patch, giant.mlp) == (24, 16, "swiglu")
    assert ViT() == ViT(patch=16, heads=12, mlp="gelu")


def test_positions():
    rows, columns, width = 3, 5, 16
    want = np.zeros((rows, columns, width))
    for r in range(rows):
        for c in range(columns):
            for i in range(width // 4):
                omega = 1 / 10000 ** (i / (width // 4))
                want[r, c, i] = np.sin(r * omega)
                want[r, c, i + width // 4] = np.cos(r * omega)
                want[r, c, i + width // 2] = np.sin(c * omega)
                want[r, c, i + 3 * width // 4] = np.cos(c * omega)
    got = sincos_positions(rows, columns, width)
    np.testing.assert_allclose(got, want.reshape(rows * columns, width), rtol=1e-12, atol=1e-12)


def test_patches_are_in_reading_order():
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    got = patches(jnp.asarray(images), 2)
    want = [images[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2] for r in range(2) for c in range(3)]
    np.testing.assert_array_equal(got, np.stack(want, 1).reshape(2, 6, 12))


def test_module_is_its_definition():
    """A NumPy float64 transformer, written from the equations, gives the same class token."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 8, 4, 3))
    with jax.enable_x64(True):
        params = _params(_tiny(), jnp.asarray(images, jnp.float32))
        p = jax.tree.map(lambda p: np.asarray(p) + 0.1 * rng.normal(size=p.shape), params)
        got = jax.jit(lambda p, x: _tiny().apply({"params": p}, x, False))(p, images)
        assert got.dtype == jnp.float64

    erf = np.vectorize(math.erf)

    def linear(x, p):
        return x @ p["kernel"] + p["bias"]

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    cut = np.stack([images[:, :4], images[:, 4:]], 1).reshape(2, 2, 48)
    x = linear(cut, p["patch_embedding"]) + sincos_positions(2, 1, 24)
    x = np.concatenate([np.broadcast_to(p["cls"], (2, 1, 24)), x], 1)
    for b in (p["block_0"], p["block_1"]):
        q, k, v = np.split(linear(norm(x, b["norm1"]), b["qkv"]), 3, -1)
        heads = []
        for h in range(3):
            cols = slice(8 * h, 8 * h + 8)
            a = np.exp(q[..., cols] @ k[..., cols].swapaxes(1, 2) / np.sqrt(8))
            heads.append(a / a.sum(-1, keepdims=True) @ v[..., cols])
        x = x + linear(np.concatenate(heads, -1), b["proj"])
        y = linear(norm(x, b["norm2"]), b["fc1"])
        x = x + linear(y * (1 + erf(y / np.sqrt(2))) / 2, b["fc2"])
    np.testing.assert_allclose(got, norm(x, p["norm"])[:, 0], rtol=1e-9, atol=1e-9)


def test_initial_values():
    images = jnp.zeros((1, 8, 8, 3))
    params = _params(_tiny(), images)
    bounds = {
        ("patch_embedding",): np.sqrt(6 / (4 * 4 * 3 + 24)),
        ("block_0", "qkv"): np.sqrt(6 / (24 + 24)),
        ("block_0", "proj"): np.sqrt(6 / (24 + 24)),
        ("block_0", "fc1"): np.sqrt(6 / (24 + 96)),
        ("block_0", "fc2"): np.sqrt(6 / (24 + 96)),
    }
    for path, bound in bounds.items():
        layer = functools.reduce(lambda tree, name: tree[name], path, params)
        assert 0.97 * bound < np.abs(layer["kernel"]).max() <= bound
        assert not np.any(layer["bias"])
    assert 0 < np.abs(params["cls"]).max() < 1e-5


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_patch_embedding_has_no_gradient(frozen):
    module = _tiny(depth=1, frozen_patch_embedding=frozen)
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    params = _params(module, images)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(module.apply({"params": p}, images, True)[:, :5])))(
        params
    )
    embedding = grads.pop("patch_embedding")
    assert all(np.any(leaf) != frozen for leaf in jax.tree.leaves(embedding))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_stochastic_depth():
    """The rate increases linearly; images without a branch skip it, the others have it scaled."""
    draws = np.full((2, 3, 2), 0.3)
    draws[1, 1] = 0.2
    wanted = np.array([[[1, 1]] * 2, [[4 / 3, 0]] * 2, [[0, 0]] * 2])
    np.testing.assert_allclose(drop_paths(jnp.asarray(draws), 0.5), wanted, rtol=1e-6)

    x = jax.random.normal(jax.random.key(0), (2, 3, 8))
    block = Block(heads=2, dtype="float32", layer_scale=0.1)
    params = block.init(jax.random.key(1), x)
    plain = block.apply(params, x)
    for factors, want in (((0, 0), x), ((1, 1), plain)):
        got = block.apply(params, x, jnp.tile(jnp.float32(factors)[:, None], 2))
        np.testing.assert_allclose(got, want, rtol=1e-6)

    module, images = _tiny(drop_path=0.9), jnp.ones((8, 4, 4, 3))
    params = _params(module, images)
    rngs = {"drop_path": jax.random.key(0)}
    apply = lambda train, **options: module.apply({"params": params}, images, train, **options)
    whole = apply(False)
    np.testing.assert_array_equal(apply(True), whole)
    np.testing.assert_array_equal(apply(False, rngs=rngs), whole)
    assert np.any(apply(True, rngs=rngs) != whole)


def test_learned_positions_are_of_one_size():
    module = ViT(heads=6, positions="learned").build(None)
    assert module.heads == 6
    image = lambda side: jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), image(64))
    assert params["params"]["positions"].shape == (1, 17, 384)
    with pytest.raises(
        UserError, match="48 x 48 pixels have 9 patches, and the learned positions are for 16"
    ):
        jax.eval_shape(lambda p, x: module.apply(p, x, False), params, image(48))


def test_spec_freezes():
    assert ViT(frozen_patch_embedding=True).build("batch").frozen_patch_embedding
    assert not ViT().build(None).frozen_patch_embedding


def test_images_must_be_cut_by_the_patch():
    images = jax.ShapeDtypeStruct((2, 32, 40, 3), jnp.float32)
    with pytest.raises(UserError, match="32 x 40 .* patches of 16; crop .* a divisor of 8"):
        jax.eval_shape(lambda x: ViT().build(None).init(jax.random.key(0), x, True), images)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"size": "smal"},
            "ViT.size must be 'small', 'base', 'large', 'huge' or 'giant', got 'smal'",
        ),
        ({"patch": 0}, "ViT.patch must be at least 1, got 0"),
        ({"patch": 16.0}, "ViT.patch must be a whole number, got 16.0"),
        ({"heads": 7}, "ViT.heads must be a divisor of the width, 384, got 7"),
        ({"positions": "sine"}, "ViT.positions must be 'sincos' or 'learned', got 'sine'"),
        ({"frozen_patch_embedding": 1}, "ViT.frozen_patch_embedding must be True or False, got 1"),
        ({"dtype": "float64"}, "ViT.dtype must be 'float32' or 'bfloat16', got 'float64'"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(UserError, match=message):
        ViT(**fields)


def test_tokens_are_the_representation_and_the_patches_without_those_masked():
    """A masked patch has no influence, its token depends on its place; registers are left out."""
    rng = np.random.default_rng(0)
    module, mask = _tiny(depth=1, registers=2), np.zeros((2, 3, 2), bool)
    mask[0, 1, 0] = True
    images = rng.normal(size=(2, 12, 8, 3)).astype(np.float32)
    init = lambda x, **how: module.init(jax.random.key(0), x, True, **how)
    shapes = jax.eval_shape(functools.partial(init, method="tokens"), images)
    without = jax.eval_shape(init, images)["params"]
    assert shapes["params"].keys() - without.keys() == {"mask_token"}
    draw = lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32)
    params = jax.tree.map(draw, shapes)
    tokens = jax.jit(lambda x, mask=None: module.apply(params, x, False, mask, method="tokens"))
    near = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    representation, patch_tokens = tokens(images)
    assert patch_tokens.shape == (2, 3, 2, 24)
    near(representation, jax.jit(lambda x: module.apply(params, x, False))(images))
    other = images.copy()
    other[0, 4:8, :4] = 7
    masked, again = tokens(images, mask), tokens(other, mask)
    jax.tree.map(near, masked, again)
    near(masked[1][1], patch_tokens[1])
    assert np.abs(masked[1][0] - patch_tokens[0]).max() > 0.1
    mask[0, 0, 0] = True
    both = tokens(images, mask)[1][0]
    assert np.abs(both[0, 0] - both[1, 0]).max() > 0.01
