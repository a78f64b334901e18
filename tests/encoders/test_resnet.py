import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.encoders import ResNet
from jaxclr.encoders.resnet import BasicBlock, Bottleneck, convolution
from jaxclr.errors import UserError


def _shapes(spec, side, channels=3, train=True):
    """Shapes of the variables and of the output, without compiling anything."""
    module = spec.build(None)
    images = jax.ShapeDtypeStruct((2, side, side, channels), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train), images)
    out, _ = jax.eval_shape(
        lambda v, x: module.apply(v, x, train, mutable=["batch_stats"]), variables, images
    )
    return variables, out


@pytest.mark.parametrize(
    "depth, parameters, features",
    [(18, 11_176_512, 512), (34, 21_284_672, 512), (50, 23_508_032, 2048)],
)
def test_size_is_torchvisions(depth, parameters, features):
    variables, out = _shapes(ResNet(depth=depth, stem="imagenet"), side=64)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert out.shape == (2, features)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_cifar_stem_takes_any_channels(channels):
    variables, out = _shapes(ResNet(), side=32, channels=channels)
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, channels, 64)
    assert out.shape == (2, 512)


@pytest.mark.parametrize("stem, sides", [("cifar", (32, 16, 8, 4)), ("imagenet", (8, 4, 2, 1))])
def test_strides(stem, sides):
    module = ResNet(stem=stem).build(None)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    _, state = jax.eval_shape(
        lambda x: module.init_with_output(
            jax.random.key(0), x, False, capture_intermediates=True, mutable=True
        ),
        images,
    )
    for stage, side in enumerate(sides):
        (out,) = state["intermediates"][f"layer{stage + 1}_1"]["__call__"]
        assert out.shape == (2, side, side, 64 * 2**stage)


@pytest.mark.parametrize("size, stride", [(3, 2), (7, 2), (3, 1), (1, 2)])
def test_convolution_pads_both_sides(size, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 8, 8, 2)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 2, 3)).astype(np.float32)
    got = convolution(3, size, stride, "float32", name=None).apply(
        {"params": {"kernel": kernel}}, x
    )
    half = size // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    places = range(0, 8, stride)
    want = [
        [np.einsum("ijc,ijcf->f", padded[0, i : i + size, j : j + size], kernel) for j in places]
        for i in places
    ]
    np.testing.assert_allclose(got[0], want, rtol=1e-4, atol=1e-4)


def test_convolution_starts_as_he_fan_out():
    module = convolution(64, 3, 1, "float32", name=None)
    kernel = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
    std = np.sqrt(2 / (64 * 9))
    assert np.std(kernel) == pytest.approx(std, rel=0.02)
    assert np.abs(kernel).max() > 2.5 * std  # not truncated at two deviations


@pytest.mark.parametrize("kind, expansion", [(BasicBlock, 1), (Bottleneck, 4)])
def test_block_starts_as_its_shortcut(kind, expansion):
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 4 * expansion))

    def start(block, x, train):
        variables = block.init(jax.random.key(0, impl="unsafe_rbg"), x, train)
        return block.apply(variables, x, train, mutable=["batch_stats"]), variables

    block = kind(width=4, stride=1, dtype="float32", axis_name=None)
    (out, _), _ = jax.jit(start, static_argnums=(0, 2))(block, x, True)
    np.testing.assert_array_equal(out, jax.nn.relu(x))

    block = kind(width=8, stride=2, dtype="float32", axis_name=None)
    (out, _), variables = jax.jit(start, static_argnums=(0, 2))(block, x, False)
    kernel = variables["params"]["downsample_0"]["kernel"][0, 0]
    want = np.einsum("bhwc,cf->bhwf", x[:, ::2, ::2], kernel) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(out, np.maximum(want, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"depth": 20}, "ResNet.depth must be 18, 34 or 50, got 20"),
        ({"depth": 18.0}, "ResNet.depth must be 18, 34 or 50, got 18.0"),
        ({"stem": "cifar10"}, "ResNet.stem must be 'cifar' or 'imagenet', got 'cifar10'"),
        ({"dtype": "float16"}, "ResNet.dtype must be 'float32' or 'bfloat16', got 'float16'"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(UserError, match=message):
        ResNet(**fields)
