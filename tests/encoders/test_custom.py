"""Encoders of a user's own: Linen modules, NNX modules, one for each view."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import distance, run_steps, tiny_config

from jaxclr.encoders import Copies, Mlp, Nnx, SmallConv, build_encoder
from jaxclr.encoders.custom import precision_of
from jaxclr.encoders.vit import ViTModule
from jaxclr.errors import UserError
from jaxclr.methods import SimClr
from jaxclr.runs.config import from_json, to_json

X = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(x.reshape(len(x), -1))


class Trained(nn.Module):
    """Has BatchNorm and dropout; the axis is the user's to name."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(8)(x.reshape(len(x), -1))
        x = nn.BatchNorm(not train, axis_name=self.axis_name)(x)
        return nn.Dropout(0.5, deterministic=not train)(x)


@dataclasses.dataclass(frozen=True)
class Spec:
    width: int = 8

    def build(self, axis_name):
        return Trained(axis_name)


@dataclasses.dataclass(frozen=True)
class Deep:
    """A transformer with stochastic depth."""

    def build(self, axis_name):
        shape = {"width": 8, "depth": 2, "heads": 1, "patch": 4, "frozen_patch_embedding": False}
        return ViTModule(**shape, dtype="float32", drop_path=0.5)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(64, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.dense(x.reshape(len(x), -1))))


class NnxPlain(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(64, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.dense(x.reshape(len(x), -1))))


def test_a_linen_module_without_train():
    module = build_encoder(Plain(), None)
    variables = module.init(jax.random.key(0), X, False)
    wanted = X.reshape(6, -1) @ variables["params"]["module"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(module.apply(variables, X, True), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("encoder", [Trained(), Spec(), Nnx(NnxNet)], ids=["linen", "spec", "nnx"])
def test_training_moves_statistics_and_draws(encoder):
    module = build_encoder(encoder, None)
    variables = module.init(jax.random.key(0), X, False)
    assert set(variables) == {"params", "batch_stats"}
    train = lambda seed: module.apply(
        variables, X, True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(seed)}
    )
    (one, moved), (again, _), (other, _) = train(0), train(0), train(1)
    np.testing.assert_array_equal(one, again)
    assert (np.asarray(one) == 0).mean() > 0.2 and not np.array_equal(one, other)
    assert distance(moved["batch_stats"], variables["batch_stats"]) > 0.01
    still = module.apply(variables, X, False)
    assert (np.asarray(still) != 0).all()


def test_an_nnx_module_is_what_it_is_alone():
    encoder = NnxPlain(nnx.Rngs(0))
    module = build_encoder(Nnx(lambda rngs: NnxPlain(rngs)), None)
    variables = module.init(jax.random.key(1), X, False)
    nnx.update(
        encoder,
        nnx.merge_state(
            nnx.State(variables["params"]["module"]), nnx.State(variables["batch_stats"]["module"])
        ),
    )
    encoder.eval()
    np.testing.assert_allclose(module.apply(variables, X, False), encoder(X), rtol=1e-6)


def test_factories_take_rngs_in_any_way():
    module = build_encoder(Nnx(lambda r: NnxPlain(r)), None)
    assert module.init_with_output(jax.random.key(0), X, False)[0].shape == (6, 8)


@pytest.mark.parametrize("devices", [8, pytest.param(2, marks=pytest.mark.full)])
def test_devices_do_not_matter(devices):
    """BatchNorms have the statistics of the global batch; dropout and depth are drawn by row."""
    encoder = (Deep(), Nnx(NnxNet))
    config = tiny_config("simclr", encoder=encoder)
    with jax.enable_x64(True):
        found = [
            run_steps(config, devices=count, how=how, steps=2, dtype=jnp.float64)
            for count, how in ((1, "shard_map"), (devices, "pmap" if devices == 2 else "shard_map"))
        ]
    (before, one, losses), (_, other, others_losses) = found
    assert distance(one.params, other.params) < 1e-9 * distance(one.params, before)
    np.testing.assert_allclose(losses, others_losses, rtol=1e-9)


def test_each_view_has_its_own_tower_and_heads():
    method = SimClr(projector=Mlp(layers=2, hidden=12, out=8))
    network = method.network((Plain(), Spec()), None)
    branches, variables = network.init_with_output(
        jax.random.key(0), (X, X), method=network.init_views
    )
    assert [branch.representation.shape for branch in branches] == [(6, 5), (6, 8)]
    assert {branch.embedding.shape for branch in branches} == {(6, 8)}
    first = variables["params"]["projector"]["modules_0"]["linear_0"]["kernel"]
    second = variables["params"]["projector"]["modules_1"]["linear_0"]["kernel"]
    assert first.shape == (5, 12) and second.shape == (8, 12)
    alone = network.apply(variables, X, False, 1)
    np.testing.assert_array_equal(alone.embedding, branches[1].embedding)


def test_heads_share_the_precision_of_our_specs_alone():
    assert precision_of(SmallConv(dtype="bfloat16")) == "bfloat16"
    assert precision_of(Plain()) == precision_of(Nnx(NnxPlain)) == "float32"


def test_copies_have_weights_of_their_own():
    out, variables = build_encoder(Copies(Spec(), count=3), None).init_with_output(
        jax.random.key(0), X, False
    )
    alone = build_encoder(Spec(), None)
    each = [
        alone.apply({kind: tree[f"heads_{copy}"] for kind, tree in variables.items()}, X, False)
        for copy in range(3)
    ]
    np.testing.assert_allclose(out, jnp.concatenate(each, axis=1), rtol=1e-6)
    assert not np.allclose(each[0], each[1])


def test_copies_survive_json():
    config = tiny_config("simclr", encoder=Copies(SmallConv(widths=(4, 8), dtype="bfloat16")))
    assert from_json(to_json(config)) == config
    assert precision_of(config.encoder) == "bfloat16"
    with pytest.raises(UserError, match="Copies.count must be at least 1, got 0"):
        Copies(SmallConv(), count=0)
    with pytest.raises(UserError, match="got the class SmallConv"):
        Copies(SmallConv)
    with pytest.raises(UserError, match="must have build.axis_name., .* got the module Plain"):
        Copies(Plain())
