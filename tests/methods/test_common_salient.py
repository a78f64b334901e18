"""Two data sets, background and target: from folders to labels, heads and messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from jaxclr.data import Arrays, Data, load
from jaxclr.errors import UserError
from jaxclr.methods import Method, Outputs, SepClr
from jaxclr.methods.common_salient import Halves
from jaxclr.training.session import open_session


def test_two_folders_are_background_and_target(tmp_path):
    """Images of the folder background have label 0, and the objective sees them as such."""
    draw = np.random.default_rng(0)
    for folder, least in (("target", 128), ("background", 0)):
        (tmp_path / folder).mkdir()
        for index in range(10):
            pixels = draw.integers(least, least + 127, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    dataset = load(Data(f"folder:{tmp_path}", image_size=8))
    SepClr().check_classes(dataset.classes)
    train = dataset.train
    bright = train.examples.mean(axis=(1, 2, 3)) > 127
    np.testing.assert_array_equal(train.labels, bright)
    c, s = draw.normal(size=(2, len(bright), 8))
    loss = lambda s: SepClr().objective(
        Outputs((jnp.hstack([c, s]),) * 2, *[None] * 3, jnp.asarray(train.labels), *[None] * 6),
        {},
        None,
    )
    # Without views to align, only background images are drawn to the origin.
    pull = np.sum(s * jax.jit(jax.grad(loss))(jnp.asarray(s)), axis=1)
    assert (pull[~bright] > 0).all() and (pull[bright] < 0).any()


def test_halves_have_heads_of_their_own():
    method = SepClr().with_heads(hidden=5, out=3)
    head = method.build_projector(None, "float32")
    assert isinstance(head, Halves)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), jnp.float32)
    z, variables = head.init_with_output(jax.random.key(0), x, False)
    moved = head.apply(variables, x.at[:, 3:].add(1.0), False)
    np.testing.assert_array_equal(z[:, :3], moved[:, :3])
    assert z.shape == (4, 6) and (z[:, 3:] != moved[:, 3:]).any()
    shapes = jax.tree.map(jnp.shape, variables["params"])
    assert shapes["first"]["linear_0"]["kernel"] == (3, 5)
    assert shapes["second"]["linear_0"]["kernel"] == (4, 5)


@pytest.mark.parametrize("background, classes", [(0, ("target",)), (2, ("background", "target"))])
def test_classes_are_checked(background, classes):
    images, labels = np.zeros((16, 8, 8, 1), np.uint8), np.arange(16) % len(classes)
    config = tiny_config(
        SepClr(background=background), data=Arrays(images, labels, classes=classes)
    )
    words = f"needs class {background} of background images .* got {len(classes)} class"
    with pytest.raises(UserError, match=words):
        open_session(config)
    Method().check_classes(classes)  # others take any
