"""Weights under PyTorch's names: there and back, every layout, errors for wrong files."""

import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import jaxclr
from jaxclr import cli
from jaxclr.encoders import ResNet, SmallConv, ViT, resnet, vit
from jaxclr.encoders.resnet import convolution
from jaxclr.errors import UserError
from jaxclr.interop.importing import read_encoder
from jaxclr.interop.layouts import find_encoder
from jaxclr.interop.names import from_torch, to_torch, torch_shapes
from jaxclr.interop.weights import read_weights


def like(spec, side=32, channels=3):
    images = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    return jax.eval_shape(lambda x: spec.build(None).init(jax.random.key(0), x, False), images)


def random_arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: np.abs(rng.normal(0, 0.1, shape)).astype(np.float32) for name, shape in shapes.items()
    }


def write(path, arrays, prefix=""):
    safetensors.numpy.save_file({f"{prefix}{name}": array for name, array in arrays.items()}, path)
    return path


@pytest.fixture
def narrow(monkeypatch):
    """ViTs of width 24."""
    monkeypatch.setitem(vit.SIZES, "small", vit.Size(24, 12, 12, 16))


def test_names_and_shapes_are_torchvisions_and_timms():
    """Numbers of arrays without classifier and counters, and some of each kind of state_dict."""
    resnet = torch_shapes(ResNet(50, stem="imagenet"), like(ResNet(50, stem="imagenet"), 64))
    assert len(resnet) == 53 * 5
    assert resnet["conv1.weight"] == (64, 3, 7, 7)
    assert resnet["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert resnet["layer1.0.downsample.1.running_var"] == (256,)
    assert resnet["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert resnet["layer3.5.bn2.bias"] == resnet["layer3.5.bn2.running_mean"] == (256,)
    spec = ViT(heads=6, positions="learned")
    shapes = torch_shapes(spec, like(spec, 224))
    assert len(shapes) == 12 * 12 + 6
    assert shapes["cls_token"] == (1, 1, 384) and shapes["pos_embed"] == (1, 197, 384)
    assert shapes["patch_embed.proj.weight"] == (384, 3, 16, 16) and shapes[
        "patch_embed.proj.bias"
    ] == (384,)
    assert shapes["blocks.11.attn.qkv.weight"] == (1152, 384) and shapes[
        "blocks.0.attn.proj.bias"
    ] == (384,)
    assert shapes["blocks.0.mlp.fc1.weight"] == (1536, 384) and shapes[
        "blocks.0.mlp.fc2.weight"
    ] == (384, 1536)
    assert shapes["blocks.0.norm1.weight"] == shapes["norm.bias"] == (384,)


@pytest.mark.parametrize(
    "spec", [ResNet(18), ViT(patch=8), ViT(patch=8, positions="learned")], ids=str
)
def test_there_and_back(narrow, spec):
    shapes = torch_shapes(spec, like(spec))
    arrays = random_arrays(shapes)
    variables = from_torch(spec, arrays, like(spec))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, like(spec))
    back = to_torch(spec, variables)
    assert set(back) == set(arrays)
    assert all(
        np.array_equal(back[name], arrays[name]) and back[name].flags.c_contiguous
        for name in arrays
    )


def test_layouts_mean_the_same():
    """A convolution and a patch embedding, by PyTorch's definitions of their weights."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    weight = random_arrays({"conv1.weight": (4, 3, 3, 3)})
    kernel = {"params": {"conv1": {"kernel": np.empty((3, 3, 3, 4), np.float32)}}}
    params = from_torch(ResNet(18), weight, kernel)["params"]["conv1"]
    got = convolution(4, 3, 1, "float32", name=None).apply({"params": params}, images)
    window = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    np.testing.assert_allclose(
        got, np.einsum("bijcyx,ocyx->bijo", window, weight["conv1.weight"]), rtol=1e-4, atol=1e-5
    )

    weight = random_arrays({"patch_embed.proj.weight": (5, 3, 2, 2)})
    kernel = {"params": {"patch_embedding": {"kernel": np.empty((12, 5), np.float32)}}}
    kernel = from_torch(ViT(patch=2), weight, kernel)["params"]["patch_embedding"]["kernel"]
    cut = images.reshape(2, 3, 2, 3, 2, 3)
    want = np.einsum("biyjxc,ocyx->bijo", cut, weight["patch_embed.proj.weight"]).reshape(2, 9, 5)
    np.testing.assert_allclose(vit.patches(images, 2) @ kernel, want, rtol=1e-4, atol=1e-5)


PUBLIC = {
    "MoCo v3 and UniCLR": (
        "state_dict.module.base_encoder.",
        ["state_dict.module.momentum_encoder.*", "state_dict.module.predictor.0.weight"],
    ),
    "MoCo v2": (
        "state_dict.module.encoder_q.",
        ["state_dict.module.encoder_k.*", "state_dict.module.queue", "state_dict.module.queue_ptr"],
    ),
    "SimSiam": ("state_dict.module.encoder.", ["state_dict.module.predictor.0.weight"]),
    "VICReg, Barlow Twins and torchvision": ("", ["fc.weight"]),
    "VICReg and Barlow Twins in training": (
        "model.module.backbone.",
        ["model.module.projector.0.weight"],
    ),
    "SwAV": ("module.", ["module.projection_head.0.weight", "module.prototypes.weight"]),
    "BYOL converted": ("state_dict.", []),
    "BYOL": (
        "online_encoder.net.",
        ["target_encoder.net.*", "online_encoder.projector.net.0.weight"],
    ),
    "solo-learn": (
        "state_dict.backbone.",
        [
            "state_dict.momentum_backbone.*",
            "state_dict.projector.0.weight",
            "optimizer_states.0.exp_avg",
        ],
    ),
}


@pytest.mark.parametrize("layout", PUBLIC)
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_public_layouts_are_found(layout, kind):
    spec = ResNet(18) if kind == "resnet" else ViT()
    own = list(torch_shapes(spec, like(spec)))
    prefix, others = PUBLIC[layout]
    names = [f"{prefix}{name}" for name in [*own, "bn1.num_batches_tracked", "fc.0.weight"]]
    for other in others:
        names += (
            [other.removesuffix("*") + name for name in own] if other.endswith("*") else [other]
        )
    arrays = {name: np.zeros(1) for name in names}
    found = find_encoder(arrays, spec, None)
    assert found.prefix == prefix
    assert sorted(found.arrays) == sorted(own)
    # Every array is the encoder's, a counter of batches, or counted as of another part.
    assert sum(found.aside.values()) == len(arrays) - len(own) - 1
    averaged = [other.removesuffix("*") for other in others if other.endswith("*")]
    for place in averaged:
        assert find_encoder(arrays, spec, place.removesuffix(".")).prefix == place


def test_other_words_for_the_same():
    """torchvision's ViT, and torchvision's ResNet as a sequence of its children."""
    last = "encoder.layers.encoder_layer_11"
    words = {
        "class_token": "cls_token",
        "conv_proj.weight": "patch_embed.proj.weight",
        "encoder.pos_embedding": "pos_embed",
        "encoder.layers.encoder_layer_0.ln_1.weight": "blocks.0.norm1.weight",
        f"{last}.self_attention.in_proj_weight": "blocks.11.attn.qkv.weight",
        "encoder.layers.encoder_layer_3.self_attention.out_proj.bias": "blocks.3.attn.proj.bias",
        "encoder.layers.encoder_layer_3.mlp.0.weight": "blocks.3.mlp.fc1.weight",
        "encoder.layers.encoder_layer_3.mlp.linear_2.bias": "blocks.3.mlp.fc2.bias",
        "encoder.ln.weight": "norm.weight",
    }
    found = find_encoder(
        {**dict.fromkeys(words, np.zeros(1)), "heads.head.weight": np.zeros(1)}, ViT(), None
    )
    assert set(found.arrays) == set(words.values()) and found.aside == {"heads": 1}
    words = {
        "backbone.0.weight": "conv1.weight",
        "backbone.1.running_mean": "bn1.running_mean",
        "backbone.4.0.conv1.weight": "layer1.0.conv1.weight",
        "backbone.7.1.downsample.0.weight": "layer4.1.downsample.0.weight",
    }
    found = find_encoder(dict.fromkeys(words, np.zeros(1)), ResNet(), None)
    assert found.prefix == "backbone." and set(found.arrays) == set(words.values())


def test_a_wrong_file_is_told_what_it_lacks(narrow, tmp_path, monkeypatch):
    spec = ViT(patch=8, positions="learned")
    arrays = random_arrays(torch_shapes(spec, like(spec)))
    file = tmp_path / "weights.safetensors"

    def refused(words, arrays, spec=spec, **options):
        with pytest.raises(UserError, match=words):
            read_encoder(write(file, arrays), spec, **options)

    less = {name: array for name, array in arrays.items() if name != "blocks.3.mlp.fc1.bias"}
    refused(
        r"weights.safetensors is of another encoder: it lacks blocks.3.mlp.fc1.bias. Asked", less
    )
    refused(
        r"blocks.12.norm1.bias would be left over",
        arrays | {"blocks.12.norm1.bias": arrays["norm.bias"]},
    )
    refused(
        r"norm.bias is \[3\] there and \[24\] here", arrays | {"norm.bias": np.zeros(3, np.float32)}
    )
    refused(r"holds no ResNet: no name ends in layer1.0.conv1.weight", arrays, spec=ResNet())
    refused(r"not MoCo v3's fixed ones; set --encoder.positions learned", arrays, spec=ViT(patch=8))
    refused(r"holds no ViT at prefix 'model'; there is one at ''", arrays, prefix="model")
    twice = {
        f"{place}.{name}": array for place in ("left", "right") for name, array in arrays.items()
    }
    refused(r"several encoders, at 'left' and 'right'; choose one with --prefix", twice)
    assert read_encoder(write(file, twice), spec, prefix="right").side == 32
    with pytest.raises(UserError, match="SmallConv has no counterpart"):
        read_encoder(file, SmallConv())

    with pytest.raises(UserError, match="There is no file"):
        read_weights(tmp_path / "missing.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_weights(file)
    with pytest.raises(UserError, match="ends in '.txt'"):
        read_weights(file.rename(tmp_path / "weights.txt"))
    (tmp_path / "weights.pth.tar").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"needs PyTorch: pip install 'jaxclr\[torch\]'"):
        read_weights(tmp_path / "weights.pth.tar")


def test_fixed_positions_are_checked_and_half_precision_is_read(narrow, tmp_path):
    spec = ViT(patch=8)
    arrays = random_arrays(torch_shapes(spec, like(spec)))
    exported = to_torch(spec, from_torch(spec, arrays, like(spec)), side=48)
    assert exported["pos_embed"].shape == (1, 37, 24) and not exported["pos_embed"][0, 0].any()
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in exported.items()}
    weights = read_encoder(
        write(tmp_path / "half.safetensors", exported | {"cls_token": half["cls_token"]}), spec
    )
    assert weights.side == 48
    params = weights.variables["params"]
    assert params["cls"].dtype == np.float32
    np.testing.assert_allclose(params["cls"], arrays["cls_token"], rtol=0.01)
    np.testing.assert_array_equal(
        params["block_2"]["qkv"]["kernel"], arrays["blocks.2.attn.qkv.weight"].T
    )


@pytest.mark.full
def test_evaluate_takes_what_was_imported(narrow, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = ViT(patch=8, positions="learned")
    write(tmp_path / "in.safetensors", random_arrays(torch_shapes(spec, like(spec, 8))))
    options = [
        "--encoder",
        "vit_small",
        "--encoder.patch",
        "8",
        "--encoder.positions",
        "learned",
        "--out",
        "run",
    ]
    cli.main(["import", "in.safetensors", *options])
    cli.main(["evaluate", "run", "--no-baselines"])
    assert "360 test images" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["resume", "run"])
    assert "has no objective to train with" in capsys.readouterr().err


def test_import_export_embed(tmp_path, capsys, monkeypatch):
    """Public weights make a run, which gives them back bit for bit and embeds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(resnet._STAGES, 18, (1, 1, 1, 1))
    spec = ResNet(18)
    arrays = random_arrays(torch_shapes(spec, like(spec)))
    extra = {"fc.weight": np.zeros((10, 512), np.float32)}
    write(tmp_path / "in.safetensors", arrays | extra, prefix="module.encoder_q.")
    cli.main(
        ["import", "in.safetensors", "--encoder", "resnet18", "--out", "run", "--image-size", "8"]
    )
    said = capsys.readouterr().out
    assert (
        f"all {len(arrays)} arrays at 'module.encoder_q'" in said
        and "module.encoder_q.fc (1)" in said
        and "solo-learn" in said
    )
    cli.main(["export", "run", "--to", "safetensors", "--out", "out.safetensors"])
    back = safetensors.numpy.load_file("out.safetensors")
    assert set(back) == set(arrays)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    cli.main(
        [
            "import",
            "out.safetensors",
            "--encoder",
            "resnet18",
            "--out",
            "again",
            "--image-size",
            "8",
        ]
    )

    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    np.savez("images.npz", images=images, labels=np.arange(30) % 3)
    cli.main(["embed", "run", "npz:images.npz", "--out", "out.npz"])
    loaded = jaxclr.load("run")
    np.testing.assert_array_equal(jaxclr.load("again").encode(images), loaded.encode(images))
    mean, std = (
        np.array(value, np.float32) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    np.testing.assert_allclose(
        loaded.preprocess(images), (images / 255 - mean) / std, rtol=1e-5, atol=1e-5
    )
    with np.load("out.npz") as file:
        assert (
            file["embeddings"].shape == (30, 512) and np.ptp(file["embeddings"], axis=0).max() > 0
        )
    capsys.readouterr()
    again = ["import", "in.safetensors", "--encoder=resnet18", "--out", "run", "--image-size", "8"]
    for words, arguments in {
        "Give a file of weights": ["import"],
        "Name the encoder in in.safetensors with --encoder": ["import", "in.safetensors"],
        "no encoder named 'resnet19'": [
            "import",
            "in.safetensors",
            "--encoder",
            "resnet19",
            "--out",
            "other",
        ],
        "run holds a run already": again,
        "Give the folder of a run": ["embed", "--out", "x.npz"],
        "nowhere is not a run": ["embed", "nowhere", "--out", "x.npz"],
        "one argument too many": ["embed", "run", "digits", "more", "--out", "x.npz"],
        "no data source named 'digit'": ["embed", "run", "digit", "--out", "x.npz"],
    }.items():
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert exit_.value.code == 2
        assert words in " ".join(capsys.readouterr().err.split()), words
