"""ViTs of DINOv2 and timm: layer scales, SwiGLU, registers and positions, in every naming."""

import math
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxclr.data import Data
from jaxclr.encoders import ViT, vit
from jaxclr.errors import UserError
from jaxclr.interop.importing import import_encoder, read_encoder
from jaxclr.interop.names import to_torch
from jaxclr.interop.positions import resize_positions
from jaxclr.runs.folder import RunFolder

WIDTH, HEADS, PATCH, GRID, HIDDEN = 32, 4, 2, 3, 88  # 88: 8/3 of the width, to a multiple of 8


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """ViTs of two blocks, 32 wide."""
    monkeypatch.setitem(vit.SIZES, "small", vit.Size(WIDTH, 2, HEADS, PATCH))


def spec_of(arrays):
    return ViT(
        positions="learned",
        layer_scale=1.0,
        mlp="swiglu" if "blocks.0.mlp.w12.weight" in arrays else "gelu",
        registers=arrays["register_tokens"].shape[1] if "register_tokens" in arrays else 0,
    )


def random_model(*, swiglu, registers):
    """Random arrays by DINOv2's names."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + GRID**2, WIDTH),
        "mask_token": (1, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, WIDTH)
    first, second = (
        (("w12", 2 * HIDDEN), ("w3", HIDDEN)) if swiglu else (("fc1", 128), ("fc2", 128))
    )
    linears = {
        "attn.qkv": (3 * WIDTH, WIDTH),
        "attn.proj": (WIDTH, WIDTH),
        f"mlp.{first[0]}": (first[1], WIDTH),
        f"mlp.{second[0]}": (WIDTH, second[1]),
    }
    norms = ["norm.", *(f"blocks.{i}.norm{j}." for i in (0, 1) for j in (1, 2))]
    shapes |= {f"{norm}{leaf}": (WIDTH,) for norm in norms for leaf in ("weight", "bias")}
    for i in (0, 1):
        shapes |= {f"blocks.{i}.ls{j}.gamma": (WIDTH,) for j in (1, 2)}
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in linears.items()}
        shapes |= {f"blocks.{i}.{name}.bias": shape[:1] for name, shape in linears.items()}
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def forward(arrays, images):
    """The normed class token in float64, from the equations; images [b, h, w, 3]."""
    p = {name: array.astype(np.float64) for name, array in arrays.items()}
    linear = lambda x, name: x @ p[f"{name}.weight"].T + p[f"{name}.bias"]
    erf = np.vectorize(math.erf)

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * p[f"{name}.weight"] + p[f"{name}.bias"]

    b = len(images)
    cut = images.reshape(b, GRID, PATCH, GRID, PATCH, 3)
    x = np.einsum("biyjxc,dcyx->bijd", cut, p["patch_embed.proj.weight"]).reshape(b, -1, WIDTH)
    x = x + p["patch_embed.proj.bias"] + p["pos_embed"][:, 1:]
    cls = np.tile(p["cls_token"] + p["pos_embed"][:, :1], (b, 1, 1))
    registers = np.tile(p.get("register_tokens", np.zeros((1, 0, WIDTH))), (b, 1, 1))
    x = np.concatenate([cls, registers, x], axis=1)
    for i in (0, 1):
        q, k, v = np.split(linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv"), 3, -1)
        heads = []
        for h in range(HEADS):
            columns = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
            a = q[..., columns] @ k[..., columns].swapaxes(1, 2) / np.sqrt(WIDTH // HEADS)
            a = np.exp(a - a.max(-1, keepdims=True))
            heads.append(a / a.sum(-1, keepdims=True) @ v[..., columns])
        y = linear(np.concatenate(heads, -1), f"blocks.{i}.attn.proj")
        x = x + y * p[f"blocks.{i}.ls1.gamma"]
        y = norm(x, f"blocks.{i}.norm2")
        if "blocks.0.mlp.w12.weight" in p:
            gate, y = np.split(linear(y, f"blocks.{i}.mlp.w12"), 2, -1)
            y = linear(gate / (1 + np.exp(-gate)) * y, f"blocks.{i}.mlp.w3")
        else:
            y = linear(y, f"blocks.{i}.mlp.fc1")
            y = linear(y * (1 + erf(y / np.sqrt(2))) / 2, f"blocks.{i}.mlp.fc2")
        x = x + y * p[f"blocks.{i}.ls2.gamma"]
    return norm(x, "norm")[:, 0]


def in_training(arrays):
    """As a training run of DINOv2 stores it: a teacher, whose blocks are in chunks."""
    chunked = lambda name: re.sub(r"^blocks\.(\d)\.", r"blocks.\1.\1.", name)
    named = {f"teacher.backbone.{chunked(name)}": array for name, array in arrays.items()}
    return named | {"teacher.dino_head.mlp.0.weight": np.zeros((2, 2), np.float32)}


def in_timm(arrays):
    """As timm stores it: with registers, the class token's position is added to it."""
    timm = {name: array for name, array in arrays.items() if name != "mask_token"}
    if "register_tokens" in timm:
        timm["reg_token"] = timm.pop("register_tokens")
        timm["cls_token"] = timm["cls_token"] + timm["pos_embed"][:, :1]
        timm["pos_embed"] = timm["pos_embed"][:, 1:].copy()
    rename = lambda name: name.replace(".w12.", ".fc1.").replace(".w3.", ".fc2.")
    return {rename(name): array for name, array in timm.items()}


def unpacked(arrays, gate, linear):
    """With two arrays for the first layer of a SwiGLU."""
    named = {}
    for name, array in arrays.items():
        halves = np.split(array, 2) if ".fc1." in name else [array]
        for half, word in zip(
            halves, (gate, linear) if len(halves) == 2 else ("fc1",), strict=True
        ):
            named[name.replace(".fc1.", f".{word}.")] = half
    return named


def write(path, arrays):
    safetensors.numpy.save_file(arrays, path)
    return path


@pytest.mark.parametrize("swiglu, registers", [(False, 0), (True, 2)])
def test_outputs_are_the_equations(tmp_path, swiglu, registers):
    """DINOv2's names, those of its training runs and timm's: the same function."""
    arrays = random_model(swiglu=swiglu, registers=registers)
    spec, images = spec_of(arrays), np.random.default_rng(1).normal(size=(2, 6, 6, 3))
    want = forward(arrays, images)
    module = spec.build(None)
    apply = jax.jit(lambda variables, images: module.apply(variables, images, False))
    for layout in (dict, in_training, in_timm):
        weights = read_encoder(write(tmp_path / "w.safetensors", layout(arrays)), spec)
        assert weights.side == 6
        rounded = layout is in_timm and registers  # the sum of class token and position
        with jax.enable_x64(True):
            got = apply(weights.variables, images)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 if rounded else 1e-9)
    got = apply(weights.variables, images.astype(np.float32))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def test_timms_files_come_back_bit_by_bit(tmp_path):
    arrays = in_timm(random_model(swiglu=True, registers=2))
    spec = ViT(positions="learned", layer_scale=1.0, mlp="swiglu", registers=2)
    weights = read_encoder(write(tmp_path / "w.safetensors", arrays), spec)
    for words in (("fc1_g", "fc1_x"), ("w1", "w2")):  # timm's SwiGLU, and xFormers' unpacked
        path = write(tmp_path / "unpacked.safetensors", unpacked(arrays, *words))
        again = read_encoder(path, spec)
        jax.tree.map(np.testing.assert_array_equal, again.variables, weights.variables)
    back = to_torch(spec, weights.variables, side=6)
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    fixed = ViT(registers=2, layer_scale=1.0, mlp="swiglu")
    params = {k: v for k, v in weights.variables["params"].items() if k != "positions"}
    path = write(tmp_path / "fixed.safetensors", to_torch(fixed, {"params": params}, side=6))
    assert read_encoder(path, fixed).side == 6


def test_what_does_not_fit_is_said(tmp_path):
    arrays = random_model(swiglu=True, registers=2)
    path = write(tmp_path / "w.safetensors", arrays)
    fields = {"positions": "learned", "layer_scale": 1.0, "mlp": "swiglu", "registers": 2}
    for change, words in {
        "registers": "reg_token would be left over",
        "layer_scale": "blocks.0.ls1.gamma",
        "mlp": "blocks.0.mlp.fc1.bias is .* there and .* here",
    }.items():
        others = {name: value for name, value in fields.items() if name != change}
        with pytest.raises(UserError, match=words):
            read_encoder(path, ViT(**others))


def by_definition(grid, new):
    """Bicubic interpolation of a square grid [n, n, d] at DINOv2's places, point by point."""
    old = len(grid)

    def kernel(x, a=-0.75):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    out = np.zeros((new, new, grid.shape[-1]))
    place = lambda i: (i + 0.5) / ((new + 0.1) / old) - 0.5
    inside = lambda i: min(max(i, 0), old - 1)
    for r in range(new):
        for c in range(new):
            y, x = place(r), place(c)
            for i in range(math.floor(y) - 1, math.floor(y) + 3):
                for j in range(math.floor(x) - 1, math.floor(x) + 3):
                    out[r, c] += kernel(y - i) * kernel(x - j) * grid[inside(i), inside(j)]
    return out


@pytest.mark.parametrize("new", [2, 5])
def test_positions_of_dinov2(new):
    positions = np.random.default_rng(0).normal(size=(1, 1 + 4**2, 3))
    got = resize_positions(positions, 1 + new**2, "dinov2")
    np.testing.assert_array_equal(got[:, 0], positions[:, 0])
    want = by_definition(positions[0, 1:].reshape(4, 4, 3), new)
    np.testing.assert_allclose(got[0, 1:].reshape(new, new, 3), want, rtol=0, atol=1e-12)


def test_images_of_another_size(tmp_path):
    arrays = random_model(swiglu=False, registers=0)
    path, spec = write(tmp_path / "w.safetensors", arrays), spec_of(arrays)
    options = {"data": Data(mean=(0.5,) * 3, std=(0.5,) * 3), "overwrite": True}
    run = RunFolder(tmp_path / "run")
    weights = import_encoder(path, spec, run, side=10, **options)
    np.testing.assert_array_equal(
        weights.variables["params"]["positions"],
        resize_positions(arrays["pos_embed"], 26, "dinov2"),
    )
    assert weights.note.endswith("interpolated from images of 6 to 10 pixels, as DINOv2 does.")
    assert run.config().augmentation.views[0].size == 10
    with pytest.raises(UserError, match="--image-size must be a multiple of the patch, 2, got 9"):
        import_encoder(path, spec, run, side=9, **options)
