"""The same weights in PyTorch give the same outputs, in and out, by way of PyTorch's own files."""

import argparse

import jax
import numpy as np
import pytest

from jaxclr.encoders import ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.interop.importing import read_encoder
from jaxclr.interop.names import to_torch
from jaxclr.interop.weights import write_safetensors

pytestmark = pytest.mark.interop

SIDE = 64
SPECS = {
    "resnet18 cifar": ResNet(18),
    "resnet34": ResNet(34, stem="imagenet"),
    "resnet50": ResNet(50, stem="imagenet"),
    "vit_small of MoCo v3": ViT(),
    "vit_small of timm": ViT(heads=6, positions="learned"),
    "vit_base": ViT("base", positions="learned"),
}
LAYOUTS = {
    "resnet18 cifar": "state_dict/backbone.",
    "resnet34": "module.encoder.",
    "resnet50": "state_dict/module.base_encoder.",
    "vit_small of MoCo v3": "state_dict/module.base_encoder.",
    "vit_small of timm": "",
    "vit_base": "model/",
}


@pytest.fixture(scope="module")
def torch():
    import torch

    torch.set_num_threads(2)
    return torch


def model_of(spec):
    import torch_models

    if isinstance(spec, ResNet):
        return torch_models.randomise(torch_models.ResNet(spec.depth, spec.stem))
    width = {"small": 384, "base": 768}[spec.size]
    fixed = spec.positions == "sincos"
    positions = torch_models.moco_positions(SIDE // spec.patch, width) if fixed else None
    model = torch_models.ViT(width, spec.heads, spec.patch, SIDE, positions)
    return torch_models.randomise(model, keep=("pos_embed",) if fixed else ())


def outputs(torch, model):
    images = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    with torch.no_grad():
        return images, model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("name", SPECS)
def test_outputs_are_pytorchs(torch, tmp_path, name):
    spec = SPECS[name]
    model = model_of(spec)
    images, want = outputs(torch, model)
    assert 0.1 < want.std() < 10
    wrapper, _, prefix = LAYOUTS[name].rpartition("/")
    arrays = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    rest = {
        "epoch": 3,
        "arch": "any",
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
    }
    averaged = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    file = tmp_path / "weights.pth.tar"
    torch.save({wrapper: arrays, "state_dict_ema": averaged, **rest} if wrapper else arrays, file)

    weights = read_encoder(file, spec)
    assert weights.found.prefix == (f"{wrapper}.{prefix}" if wrapper else prefix)
    module = spec.build(None)
    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda v, x: module.apply(v, x, False))(weights.variables, images)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)

    # And back into the same architecture, whose classifier and counters are kept.
    import safetensors.torch

    exported = to_torch(spec, weights.variables, side=SIDE)
    write_safetensors(tmp_path / "out.safetensors", exported, {})
    again = model_of(spec)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    unknown = again.load_state_dict(
        safetensors.torch.load_file(tmp_path / "out.safetensors"), strict=False
    )
    assert not unknown.unexpected_keys
    assert all(
        key.endswith("num_batches_tracked") or key.split(".")[0] in ("fc", "head")
        for key in unknown.missing_keys
    )
    state = model.state_dict()
    for key, value in again.state_dict().items():
        # Fixed positions are computed on either side, and differ in their last digits.
        atol = 1e-6 if key == "pos_embed" and spec.positions == "sincos" else 0
        if key not in unknown.missing_keys:
            np.testing.assert_allclose(
                value.numpy(), state[key].numpy(), rtol=0, atol=atol, err_msg=key
            )
    np.testing.assert_allclose(outputs(torch, again)[1], want, rtol=1e-5, atol=1e-5)


def test_nothing_is_unpickled_that_could_run(torch, tmp_path):
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": {}}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="more than tensors and plain values"):
        read_encoder(tmp_path / "weights.pth", ResNet())
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="weights.pth is damaged"):
        read_encoder(tmp_path / "weights.pth", ResNet())
