"""Files of weights that are damaged, hostile, or of kinds that are not read: a sentence each."""

import json
import os
import types

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxclr.encoders import ResNet, ViT
from jaxclr.errors import UserError
from jaxclr.interop import importing, weights
from jaxclr.interop.importing import LARGEST_GRID, read_encoder
from jaxclr.interop.names import torch_shapes


def like(spec, channels=3):
    images = jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32)
    return jax.eval_shape(lambda x: spec.build(None).init(jax.random.key(0), x, False), images)


def write_header(path, entries, size=0):
    """A safetensors file by its header."""
    header = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    return path


def tensor(shape, dtype="float32", **kinds):
    """What torch.load returns, as far as it is asked."""
    flags = {"is_nested": False, "is_quantized": False, "is_meta": False, "layout": "torch.strided"}
    value = types.SimpleNamespace(**{**flags, **kinds}, shape=shape, dtype=f"torch.{dtype}")
    value.detach = value.float = lambda: value
    value.numpy = lambda: np.ones(shape, np.float32)  # terabytes for some
    return value


DTYPES = {"F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "I64": 8, "BOOL": 1, "C64": 8}
KINDS = {
    "float8_e4m3fn": {"dtype": "float8_e4m3fn"},
    "int8": {"dtype": "int8"},
    "complex64": {"dtype": "complex64"},
    "sparse_coo": {"layout": "torch.sparse_coo"},
    "sparse_csr": {"layout": "torch.sparse_csr"},
    "quantized": {"is_quantized": True, "dtype": "qint8"},
    "meta": {"is_meta": True},
    "nested": {"is_nested": True},
}
BROKEN = {
    "no header": b"",
    "a long header": (2**40).to_bytes(8, "little"),
    "deep": (10**5).to_bytes(8, "little") + b"[" * 10**5,
    "a list": (2).to_bytes(8, "little") + b"[]",
    "beyond the file": {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
    "wrong size": {"a": {"dtype": "F32", "shape": [10**30], "data_offsets": [0, 4]}},
    "negative": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "no type": {"a": {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}},
    "text": {"a": "b"},
}


@pytest.fixture(scope="module")
def resnet():
    spec = ResNet(18)
    shapes = like(spec)
    return spec, shapes, torch_shapes(spec, shapes)


@pytest.mark.parametrize("kind", BROKEN)
def test_headers_that_promise_what_is_not_there(tmp_path, kind):
    path = tmp_path / "weights.safetensors"
    if isinstance(BROKEN[kind], bytes):
        path.write_bytes(BROKEN[kind])
    else:
        write_header(path, BROKEN[kind], 4)
    with pytest.raises(UserError, match=r"weights.safetensors cannot be read as safetensors: .+\."):
        weights.read_weights(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="There is no file"):
        weights.read_weights(path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_that_are_no_weights(tmp_path, dtype):
    size = 6 * DTYPES[dtype]
    entry = {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, size]}
    (stored,) = weights.read_weights(
        write_header(tmp_path / "w.safetensors", {"a.b": entry}, size)
    ).values()
    assert stored.shape == (2, 3)
    with pytest.raises(UserError, match=f"has a.b as {dtype}; dense arrays of float16"):
        stored.read()


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_not_dense(kind):
    tree = {"state_dict": {"a": tensor((2, 3), **KINDS[kind])}, "epoch": 3}
    ((name, stored),) = weights.flat_tensors(tree)
    assert name == "state_dict.a" and stored.shape == (() if kind == "nested" else (2, 3))
    with pytest.raises(UserError, match=f"has state_dict.a as {kind}; dense arrays"):
        stored.read()


def test_shapes_are_compared_before_anything_is_read(tmp_path, monkeypatch, resnet):
    """A view of one number has any shape: only what fits is read."""
    spec, variables, shapes = resnet
    monkeypatch.setattr(importing, "_like", lambda *_: variables)  # of three channels
    tensors = {name: tensor(shape) for name, shape in shapes.items()}
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")

    def read(**changes):
        monkeypatch.setattr(weights, "_unpickle", lambda _: {**tensors, **changes})
        return read_encoder(path, spec)

    assert len(read().found.arrays) == len(shapes)
    for name, shape in {
        "layer1.0.conv1.weight": (10**15,),
        "conv1.weight": (8, 10**13, 3, 3),
    }.items():
        with pytest.raises(UserError, match=f"weights.pth is of another encoder: {name} is"):
            read(**{name: tensor(shape)})
    with pytest.raises(UserError, match=r"weights.pth has bn1.bias as sparse_coo; .* Asked for"):
        read(**{"bn1.bias": tensor(shapes["bn1.bias"], layout="torch.sparse_coo")})
    contained = dict(tensors)
    contained["self"] = contained
    with pytest.raises(UserError, match=r"weights.pth is nested too deeply, or contains itself"):
        read(self=contained)


def test_names_of_variables_of_any_size_take_no_memory():
    kernel = jax.ShapeDtypeStruct((3, 3, 10**13, 64), np.float32)
    named = torch_shapes(ResNet(18), {"params": {"conv1": {"kernel": kernel}}})
    assert named == {"conv1.weight": (64, 10**13, 3, 3)}


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_positions_of_a_grid_of_any_size(tmp_path, monkeypatch, positions):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    tensors = {
        "blocks.0.norm1.weight": tensor((384,)),
        "patch_embed.proj.weight": tensor((384, 3, 16, 16)),
        "pos_embed": tensor((1, 10**12 + 1, 384)),
    }
    monkeypatch.setattr(weights, "_unpickle", lambda _: tensors)
    with pytest.raises(UserError, match=f"square of at most {LARGEST_GRID} x {LARGEST_GRID}"):
        read_encoder(path, ViT(positions=positions))


def test_a_full_disk_is_a_system_error(tmp_path):
    with pytest.raises(OSError):
        weights.write_safetensors(tmp_path / "nowhere" / "x", {"a": np.zeros(3)}, {})


def test_a_whole_file_is_read(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float64([[1.5]])}
    safetensors.numpy.save_file(arrays, tmp_path / "w.safetensors")
    found = weights.read_weights(tmp_path / "w.safetensors")
    assert {name: stored.shape for name, stored in found.items()} == {"a": (2, 3), "b": (1, 1)}
    for name, stored in found.items():
        np.testing.assert_array_equal(stored.read(), arrays[name])
