"""What a method's class says of itself, and classes of a user's own."""

import dataclasses
import re

import jax.numpy as jnp
import pytest
from tiny import run_steps, tiny_config

from jaxclr import methods
from jaxclr.encoders import Mlp
from jaxclr.errors import UserError
from jaxclr.methods import (
    METHODS,
    Imported,
    Method,
    MomentumEncoder,
    Predictive,
    Shared,
    SimClr,
    StopGradient,
)
from jaxclr.runs.config import from_json, to_json

# The methods that compare embeddings, not predictions, with those of a momentum encoder.
MOMENTUM = {
    "co2",
    "dino",
    "direct_copy",
    "direct_pred",
    "ft",
    "ibot",
    "mmcr",
    "moco_v2",
    "pauc",
    "pcl",
    "ressl",
    "tico",
    "uni_grad",
}


def names(kind):
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", METHODS)
def test_heads_and_target_are_fields_where_they_act(name):
    kind = METHODS[name]
    assert "projector" in names(kind)
    assert ("predictor" in names(kind)) == issubclass(kind, Predictive)
    assert ("target" in names(kind)) == (issubclass(kind, Predictive) or name in MOMENTUM)
    method = kind()
    if not issubclass(kind, Predictive):
        assert method.predictor is None
        assert method.target == Shared() or name in MOMENTUM
    assert isinstance(method.target, MomentumEncoder) == (
        "target" in names(kind) and kind.target != StopGradient()
    )


def test_methods_are_listed_by_name():
    assert list(METHODS) == sorted(METHODS)
    for kind in METHODS.values():
        assert getattr(methods, kind.__name__) is kind
        assert re.search(r"arXiv:\d{4}\.\d{4,5}", kind.__doc__.splitlines()[0]), kind


def test_an_import_has_no_heads_to_choose():
    assert names(Imported) == {"file", "prefix"}
    assert Imported().network(tiny_config().encoder, None).predictor is None
    with pytest.raises(UserError, match=r"imported from weights\.npz and has no objective"):
        Imported(file="weights.npz").objective(None, None, None)


def test_a_target_of_another_type_is_refused():
    with pytest.raises(UserError, match="method.target must be MomentumEncoder, got StopGradient"):
        METHODS["moco_v2"](target=StopGradient())
    with pytest.raises(
        UserError, match="method.target must be Shared, StopGradient or MomentumEncoder, got 'ema'"
    ):
        METHODS["byol"](target="ema")
    with pytest.raises(TypeError, match="predictor"):
        SimClr(predictor=Mlp())


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"momentum": 1.5}, "method.target.momentum must be at least 0 and at most 1, got 1.5"),
        (
            {"update": "never"},
            "method.target.update must be 'before_keys' or 'after_update', got 'never'",
        ),
    ],
)
def test_a_momentum_encoder_is_checked(fields, words):
    with pytest.raises(UserError, match=words):
        MomentumEncoder(**fields)


@dataclasses.dataclass(frozen=True)
class Mine(Method):
    """The least that a user writes."""

    weight: float = 0.5

    def objective(self, out, state, axis_name):
        (z1, z2), (k1, k2) = out.predictions, out.targets
        return self.weight * (jnp.mean((z1 - k2) ** 2) + jnp.mean((z2 - k1) ** 2))


@dataclasses.dataclass(frozen=True)
class Warm(SimClr):
    """One of ours with another default."""

    temperature: float = 0.4


class Renamed(SimClr):
    """One of ours with nothing of its own, and no decorator."""


@pytest.mark.parametrize("method", [Mine(), Mine(weight=2), Warm(), Renamed(temperature=0.3)])
def test_a_users_class_is_read_back(method):
    config = tiny_config(method)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("method", [Mine(), Renamed(temperature=0.3)])
def test_a_users_class_trains(method):
    config = tiny_config(method)
    _, state, losses = run_steps(config, devices=1, how="shard_map", steps=2)
    assert state.bad_step == -1 and losses[1] != losses[0]


def test_a_users_fields_are_checked():
    with pytest.raises(UserError, match="method.weight must be a number, got 'much'"):
        Mine(weight="much")


def test_heads_are_resized_together():
    for method in (Mine(), METHODS["sim_siam"](), METHODS["byol"](predictor=None)):
        small = method.with_heads(hidden=12, out=8)
        for before, after in zip(
            (method.projector, method.predictor), (small.projector, small.predictor), strict=True
        ):
            assert after == (before and dataclasses.replace(before, hidden=12, out=8))
