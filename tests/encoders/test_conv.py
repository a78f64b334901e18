import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.encoders import SmallConv
from jaxclr.encoders.conv import halve, neighborhoods, patches
from jaxclr.errors import UserError


def test_size():
    module = SmallConv().build(None)
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    out, variables = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, False), images
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 23_408
    assert out.shape == (2, 64)


def test_neighborhoods_make_a_convolution():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 7)), jnp.float32)
    want = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    got = neighborhoods(x) @ kernel.reshape(27, 7)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_halve_drops_an_odd_row():
    x = jnp.arange(15.0).reshape(1, 5, 3, 1)
    np.testing.assert_array_equal(halve(x)[0, :, :, 0], [[2.0], [8.0]])


def test_patches_are_squares_of_pixels():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    np.testing.assert_array_equal(patches(x, 2)[1, 1, 2], x[1, 2:4, 4:6].reshape(12))
    images = jax.ShapeDtypeStruct((2, 8, 9, 1), jnp.float32)
    with pytest.raises(UserError, match="8 x 9 pixels cannot be cut into patches of 2"):
        module = SmallConv(patch=2).build(None)
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, True), images)


def test_images_too_small():
    images = jax.ShapeDtypeStruct((2, 8, 3, 1), jnp.float32)
    with pytest.raises(UserError, match="8 x 3 pixels .* at least 4 pixels"):
        jax.eval_shape(lambda x: SmallConv().build(None).init(jax.random.key(0), x, True), images)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"widths": ()}, r"SmallConv.widths must be of length 1 or more, got \(\)"),
        ({"widths": [16, 32]}, r"SmallConv.widths must be a tuple, got \[16, 32\]"),
        ({"widths": (16, 0)}, r"SmallConv.widths\[1\] must be at least 1, got 0"),
        ({"widths": (16, True)}, r"SmallConv.widths\[1\] must be a whole number, got True"),
        ({"dtype": None}, "SmallConv.dtype must be 'float32' or 'bfloat16', got None"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(UserError, match=message):
        SmallConv(**fields)
