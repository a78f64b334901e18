"""An encoder out of a run, without its data."""

import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxclr
from jaxclr.errors import UserError
from jaxclr.interop import exporting


def test_it_sees_what_evaluation_sees(digits):
    want = digits.session.subject(digits.state).features[1].values
    images = digits.session.dataset.test.examples
    np.testing.assert_allclose(digits.loaded.encode(images[:250]), want[:250], rtol=1e-6, atol=1e-6)
    assert digits.loaded.step == 3 and digits.loaded.channels == 1
    module = digits.loaded.config.encoder.build(None)
    apply = jax.jit(lambda v, x: module.apply(v, digits.loaded.preprocess(x), False))
    np.testing.assert_allclose(
        apply(digits.loaded.variables, images[:250]), want[:250], rtol=1e-6, atol=1e-6
    )


def test_wrong_images_are_told(digits):
    with pytest.raises(UserError, match="3 channel.* takes 1"):
        digits.loaded.encode(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(TypeError, match="uint8 .* got float32"):
        digits.loaded.encode(np.zeros((2, 8, 8, 1), np.float32))


def test_a_damaged_checkpoint_is_told(digits, tmp_path):
    folder = shutil.copytree(digits.run.folder, tmp_path / "run")
    data = next((folder / "checkpoints" / "3" / "state" / "ocdbt.process_0" / "d").iterdir())
    whole = data.read_bytes()
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(UserError, match="Every checkpoint .* is damaged"):
        jaxclr.load(folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        jaxclr.load(folder)
    with pytest.raises(UserError, match="is not a run"):
        jaxclr.load(tmp_path)


ALONE = """
import pathlib, sys
for name in ("jaxclr", "flax", "chex", "optax", "orbax", "sklearn", "tyro", "safetensors"):
    sys.modules[name] = None
import jax.export, numpy as np
encode = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes())).call
images, want = (np.load(name) for name in sys.argv[2:])
for count in (1, len(images)):
    np.testing.assert_allclose(encode(images[:count]), want[:count], rtol=1e-5, atol=1e-5)
"""


def test_stablehlo_runs_with_jax_alone(digits, tmp_path):
    images = digits.session.dataset.test.examples[:7]
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "want.npy", digits.loaded.encode(images))
    exporting.export(digits.loaded, "stablehlo", tmp_path / "encoder")
    files = [str(tmp_path / name) for name in ("encoder", "images.npy", "want.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True)
    with pytest.raises(UserError, match="exists. Replace it with --overwrite"):
        exporting.export(digits.loaded, "stablehlo", tmp_path / "encoder")
    with pytest.raises(UserError, match="SmallConv has no counterpart in torchvision or timm"):
        exporting.export(digits.loaded, "safetensors", tmp_path / "weights")
