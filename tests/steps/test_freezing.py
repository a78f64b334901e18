"""Frozen parts are bit-equal after training, and cost the optimizer no memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from tiny import opened, run_steps, tiny_config

from jaxclr.encoders import Nnx
from jaxclr.encoders.layers import batch_norm
from jaxclr.errors import UserError
from jaxclr.methods import METHODS, Method
from jaxclr.steps.freezing import frozen_norms, keep_frozen, matches, name_of
from jaxclr.steps.optimizers import Sgd
from jaxclr.training.session import open_session

FROZEN = ("encoder/*_0", "predictor", "*/scale")
STEPS = 2


def named(tree):
    return {name_of(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.full), 8])
def test_frozen_parts_are_bit_equal(devices):
    optimizer = Sgd(0.5, weight_decay=0.1)
    config = tiny_config("moco_v3", optimizer=optimizer, freeze=FROZEN, clip_norm=1.0)
    _, before = opened(config)
    _, after, _ = run_steps(config, devices=devices, how="shard_map", steps=STEPS)
    for part in ("params", "batch_stats", "target_params", "target_batch_stats"):
        old, new = named(getattr(before, part)), named(getattr(after, part))
        assert any(matches(name, FROZEN) for name in old)
        for name in old:
            equal = old[name].tobytes() == np.asarray(new[name]).tobytes()
            assert equal == matches(name, FROZEN), f"{part}: {name}"
    stored = [name for name in named(after.opt_state) if "conv" in name]
    assert stored and not any(matches(name, [f"*{frozen}" for frozen in FROZEN]) for name in stored)


OWN_PARTS = [name for name, kind in METHODS.items() if kind.init_params is not Method.init_params]


@pytest.mark.parametrize(
    "name",
    [name if name == "swav" else pytest.param(name, marks=pytest.mark.full) for name in OWN_PARTS],
)
def test_parts_of_a_method_stand_still_while_frozen(name):
    """SwAV's prototypes by themselves in the first step, others by a pattern."""
    at_first = METHODS[name]().frozen_first
    changes = {} if at_first else {"freeze": ("readout",)}
    config = tiny_config(name, optimizer=Sgd(0.5, weight_decay=0.5), **changes)
    _, before = opened(config)
    _, after, _ = run_steps(config, devices=1, how="shard_map", steps=1)
    jax.tree.map(np.testing.assert_array_equal, before.params["readout"], after.params["readout"])
    memory = {key: leaf for key, leaf in named(after.opt_state).items() if "readout" in key}
    assert bool(memory) == bool(at_first)
    assert not any(np.any(leaf) for leaf in memory.values())


def test_what_is_frozen_at_first_is_trained_later():
    old, new = {"readout": {"w": jnp.zeros(2)}}, {"readout": {"w": jnp.ones(2)}}
    for step in range(4):
        kept = keep_frozen(old, new, (), {"readout/w": 2}, jnp.int32(step))
        assert bool(kept["readout"]["w"].all()) == (step >= 2)


@pytest.mark.parametrize(
    "pattern, told",
    [
        (
            "encoder/stem*",
            "freeze: 'encoder/stem*' matches no variable. There are encoder/conv_0, ",
        ),
        ("*", "freeze: * leaves no parameter to train"),
    ],
)
def test_patterns_are_checked(pattern, told):
    with pytest.raises(UserError) as refused:
        open_session(tiny_config("simclr", freeze=(pattern,)))
    assert told in str(refused.value)
    assert pattern == "*" or "encoder/norm_1, projector/linear_0" in str(refused.value)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, name="first")(x)
        return batch_norm("float32", None, train, name="second")(x)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.BatchNorm(3, rngs=rngs)
        self.second = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.second(self.first(x)).mean(1)


@pytest.mark.parametrize("network, inside", [(Nnx(Net).build(None), "module/"), (Linen(), "")])
def test_frozen_norms_use_running_statistics(network, inside):
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 3)), jnp.float32)
    variables = network.init(jax.random.key(0), x, False)
    before = named(variables["batch_stats"])

    def updated(pattern):
        with nn.intercept_methods(frozen_norms((pattern,))):
            out, new = network.apply(variables, x, True, mutable=["batch_stats"])
        after = named(new["batch_stats"])
        return out, {name for name, old in before.items() if np.any(after[name] != old)}

    both = [{f"{inside}{norm}/{of}" for of in ("mean", "var")} for norm in ("first", "second")]
    assert updated("nothing")[1] == both[0] | both[1]
    assert updated(f"{inside}first")[1] == both[1]
    out, changed = updated("*")
    assert not changed
    np.testing.assert_array_equal(out, network.apply(variables, x, False))


def test_a_frozen_encoder_leaves_the_heads_to_train():
    session = open_session(tiny_config(freeze=("encoder",)))
    stored = named(jax.eval_shape(session.init_state).opt_state)
    assert not any("encoder" in name for name in stored) and any("projector" in n for n in stored)
