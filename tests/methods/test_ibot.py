"""iBOT from masks to a run: what student and teacher see, devices, errors, and the commands."""

import dataclasses
import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from tiny import BATCH, VIT, distance, opened, rows_of, run_steps, tiny_config

import jaxclr
from jaxclr.augment import Augmentation, DigitView
from jaxclr.encoders import Mlp, SmallConv
from jaxclr.errors import UserError
from jaxclr.interop.initial import start_from
from jaxclr.methods import Dino, Ibot
from jaxclr.runs.folder import RunFolder
from jaxclr.steps.dry_run import check_parts
from jaxclr.steps.step import observe
from jaxclr.training import loop, train
from jaxclr.training.session import open_session

LINEAR = Mlp(layers=1)
QUIET = rich.console.Console(file=io.StringIO())
# Other draws take long to compile.
NOISE = Augmentation((DigitView(rotation=0, scale=(1, 1), shift=0, erase=0, noise=0.3),) * 2)


@pytest.fixture
def alone(monkeypatch):
    """A single device."""
    device = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: device)


def test_the_student_sees_masks_and_the_teacher_does_not():
    """At first both are the same network: outputs agree where an image is not masked."""
    config = tiny_config(Ibot(projector=LINEAR), augmentation=NOISE)
    session, state = opened(config)
    see = jax.jit(lambda s, b: observe(s, b, recipe=session.recipe, axis_name=None))
    with jax.default_device(jax.devices()[0]):
        recipe = session.recipe._replace(network=config.method.network(config.encoder, None))
        session = session._replace(recipe=recipe)
        out = see(state, rows_of(session, slice(BATCH)))
    assert len(out.embeddings) == len(out.targets) == len(out.masks) == 2
    assert out.patches[0].shape == out.target_patches[0].shape == (BATCH, 16, 8)
    masked = np.stack(out.masks).any(2)
    assert masked.any() and not masked.all()
    for student, teacher in ((out.embeddings, out.targets), (out.patches, out.target_patches)):
        apart = np.abs(np.stack(student) - np.stack(teacher)).max(axis=-1)
        apart = apart.max(axis=2) if apart.ndim == 3 else apart
        np.testing.assert_allclose(apart[~masked], 0, atol=1e-6)
        assert (apart[masked] > 1e-4).all()


# The short suite holds masks (test_masks.py), and objective and state (test_global_batch.py).
@pytest.mark.full
def test_two_steps_are_those_of_two_devices_and_of_micro_batches():
    """With KoLeo; heads have no BatchNorm, whose rows are those of a micro-batch."""
    config = tiny_config(Ibot(koleo_weight=0.1, projector=LINEAR), augmentation=NOISE)
    parts = dataclasses.replace(config, micro_batches=2)
    with jax.enable_x64(True):
        run = lambda config, devices: run_steps(
            config, devices=devices, how="shard_map", steps=2, dtype=jnp.float64
        )
        (before, one, losses), (_, other, others) = run(config, 1), run(parts, 2)
    np.testing.assert_allclose(others, losses, rtol=1e-9)
    for part in ("params", "target_params", "method_state"):
        assert distance(getattr(one, part), getattr(other, part)) < 1e-9, part
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, one.params)
    assert moved["encoder"]["mask_token"] > 0


class Wrong(nn.Module):
    """Patch tokens that are one list."""

    patch: int = 2

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(4)(x.reshape(len(x), -1))

    def tokens(self, x, train, mask):
        return self(x, train), x.reshape(len(x), 16, 4)


class Right(Wrong):
    """The least that a user writes; a learned mask token is left to it."""

    def tokens(self, x, train, mask):
        cells = x.reshape(len(x), 4, 2, 4, 2).swapaxes(2, 3).reshape(len(x), 4, 4, 4)
        return self(x, train), cells if mask is None else jnp.where(mask[..., None], 0, cells)


def checked(config):
    session = open_session(config)
    split = session.dataset.train.examples
    examples = jax.ShapeDtypeStruct((config.batch_size, *split.shape[1:]), split.dtype)
    check_parts(config, session.recipe, examples, devices=1)


def test_an_encoder_without_patch_tokens_is_one_sentence():
    checked(tiny_config("ibot", encoder=Right()))
    with pytest.raises(UserError, match="Ibot needs patch tokens, .* SmallConv does not give; "):
        checked(tiny_config("ibot", encoder=SmallConv(widths=(4, 8))))
    with pytest.raises(UserError, match=r"the encoder Dense does not give; choose a ViT"):
        checked(tiny_config("ibot", encoder=(VIT, nn.Dense(3))))
    with pytest.raises(UserError, match=r"patch tokens \[\d+, 16, 4\] .* \[\d+, 4, 4, 4\]\."):
        checked(tiny_config("ibot", encoder=Wrong()))
    with pytest.raises(UserError, match=r"mask_ratio must be .* got \(0.5, 0.1\)"):
        Ibot(mask_ratio=(0.5, 0.1))
    with pytest.raises(UserError, match=r"mask_ratio\[1\] must be .* at most 1, got 2"):
        Ibot(mask_ratio=(0.5, 2))


def test_koleo_needs_a_second_image(alone):
    assert Dino().one_row and not Dino(koleo_weight=0.1).one_row
    with pytest.raises(UserError, match="Dino compares the images of a batch"):
        checked(tiny_config(Dino(koleo_weight=0.1), batch_size=1))


def test_a_run_goes_on_and_is_evaluated_embedded_and_exported(alone, tmp_path, monkeypatch):
    """The mask token is not exported, and another run starts without it."""
    session = open_session(tiny_config("ibot", augmentation=NOISE, steps=3))
    step = loop.compile_step(session)
    monkeypatch.setattr(loop, "compile_step", lambda _: step)
    folders = [RunFolder(tmp_path / name) for name in ("whole", "stopped")]
    for folder in folders:
        folder.create(session.config, overwrite=False)
    whole = train(session, folders[0], console=QUIET)
    train(session, folders[1], console=QUIET, stop_after=2)
    again = train(session, folders[1], console=QUIET)
    assert again.step == 3
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(again))

    run = jaxclr.Run(folders[1].folder)
    assert run.config == session.config
    assert run.evaluate("knn", k=3)["figures"]["accuracy"]["values"][0] > 0.2
    run.embed(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["embeddings"].shape == (1797, 8)
    exported = tmp_path / "vit.safetensors"
    loaded = run.export(exported, "safetensors")
    assert "mask_token" in loaded.variables["params"]
    assert "mask_token" not in exported.read_bytes().decode("latin-1")
    started = start_from(session, exported)
    left = [name for name in started.record["left"] if "encoder" in name]
    assert left == ["params/encoder/mask_token"]
    np.testing.assert_array_equal(*(s.params["encoder"]["cls"] for s in (started.state, again)))
