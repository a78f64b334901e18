"""Rematerialized blocks have the same parameters, outputs and gradients, and store less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr.encoders import ENCODERS, ResNet, ViT, resnet
from jaxclr.encoders.vit import ViTModule
from jaxclr.errors import UserError


def build(name, remat):
    """Two blocks of the encoder of that name."""
    if name == "resnet":
        return ResNet(remat=remat).build(None)
    shape = {"width": 24, "depth": 2, "heads": 3, "patch": 4, "frozen_patch_embedding": False}
    return ViTModule(**shape, dtype="float32", remat=remat)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_gradients_are_equal_and_less_is_kept(name, monkeypatch):
    """From none by dots to blocks, less is stored and more is recomputed."""
    monkeypatch.setitem(resnet._STAGES, 18, (2,))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(16, 16, 16, 3)), jnp.float32)
    modules = [build(name, remat) for remat in ("none", "dots", "blocks")]
    key = jax.random.key(0, impl="unsafe_rbg")
    shapes, *others = [jax.eval_shape(lambda m=m: m.init(key, images, True)) for m in modules]
    assert others == [shapes, shapes]
    rng = np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(
        rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1])), jnp.float32
    )
    params, stats = jax.tree.map(draw, shapes["params"]), shapes.get("batch_stats", {})
    stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), stats)

    def loss(module, params):
        variables = {"params": params, "batch_stats": stats}
        out, updates = module.apply(variables, images, True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(out)), updates

    step = jax.jit(jax.value_and_grad(loss, 1, has_aux=True), static_argnums=0)
    want, *others = (jax.tree.leaves(step(module, params)) for module in modules)
    for got in others:
        for one, other in zip(want, got, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)

    def kept(module):
        """Bytes stored for the gradient; outside of loops XLA on CPUs undoes what remat saves."""
        pulls = jax.eval_shape(lambda: jax.vjp(lambda p: loss(module, p), params, has_aux=True)[1])
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pulls))

    none, dots, blocks = map(kept, modules)
    assert blocks < 0.5 * none and 1.3 * blocks < dots < 0.7 * none
    none, dots, blocks = (step.lower(m, params).cost_analysis()["flops"] for m in modules)
    assert blocks > 1.2 * none and 0 < dots - none < 0.6 * (blocks - none)


@pytest.mark.parametrize("name", ["resnet50", "vit_small"])
def test_every_block_is_rematerialized(name):
    spec = ENCODERS[name]
    module = type(spec)(**{**vars(spec), "remat": "blocks"}).build(None)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, True))
    program = jax.make_jaxpr(lambda v: module.apply(v, images, True, mutable=["batch_stats"]))(
        variables
    )
    blocks = [one for one in variables["params"] if one.startswith(("layer", "block_"))]
    assert (
        sum(equation.primitive.name in ("checkpoint", "remat2") for equation in program.eqns)
        == len(blocks)
        > 10
    )


@pytest.mark.parametrize("kind", [ResNet, ViT])
def test_a_bad_switch(kind):
    words = f"{kind.__name__}.remat must be 'none', 'blocks' or 'dots', got 'yes'"
    with pytest.raises(UserError, match=words):
        kind(remat="yes")
