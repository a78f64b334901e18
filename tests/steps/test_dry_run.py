"""What does not fit is named before anything is compiled."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny import tiny_config

from jaxclr.augment import Augmentation
from jaxclr.data import Arrays, Source
from jaxclr.encoders import Mlp, Nnx, SmallConv
from jaxclr.errors import UserError
from jaxclr.methods import BarlowTwins, Byol, SimClr
from jaxclr.processes import runtime
from jaxclr.training.session import open_session

DATA = Arrays({"series": np.zeros((40, 20, 3), np.float32)})


def series(keys, batch):
    return batch["series"]


def first(keys, batch):
    return batch["series"][:1]


class Net(nn.Module):
    """[b, T, C] to [b, 4]."""

    @nn.compact
    def __call__(self, x):
        b, t, c = x.shape
        return nn.Dense(4)(x.reshape(b, t * c))


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x):
        count = self.variable("counts", "calls", jnp.zeros, ())
        return nn.Dense(4)(x.mean(1)) + count.value


class NotLinen:
    def build(self, axis_name):
        return "a string"


@dataclasses.dataclass(frozen=True)
class Vector(SimClr):
    """A loss for each row."""

    def objective(self, out, state, axis_name):
        return jnp.sum(out.embeddings[0], axis=1)


@dataclasses.dataclass(frozen=True)
class Misspelled(SimClr):
    def objective(self, out, state, axis_name):
        return out.embedings[0].sum()


def views(*functions):
    return Augmentation(views=functions)


def config(**changes):
    fields = {
        "method": SimClr(),
        "encoder": Net(),
        "data": DATA,
        "augmentation": views(series, series),
        **changes,
    }
    return tiny_config(fields.pop("method"), **fields)


MISFITS = {
    "view 2 (<lambda>) cannot take the data, {series: float32 [16, 20, 3]}: KeyError: 'serie'": {
        "augmentation": views(series, lambda keys, batch: batch["serie"])
    },
    "view 2 (first) gives float32 [1, 20, 3] for a batch of 16; it must give arrays [16, ...]": {
        "augmentation": views(series, first)
    },
    "view 1 gives float32 [16, 20], and the encoder Net cannot take it: ValueError: "
    "not enough values to unpack": {
        "augmentation": views(lambda keys, batch: batch["series"][:, :, 0], series)
    },
    "for which the encoder Nnx gives float32 [16, 20, 2]; it must give floats [b, F]": {
        "encoder": Nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs))
    },
    "the encoder Counting has variables in counts; a state stores those in params and "
    "batch_stats only": {"encoder": Counting()},
    "NotLinen.build(axis_name) returned str, not a flax.linen.Module": {"encoder": NotLinen()},
    "encoder is a tuple of 3, one for each view, and the augmentation has 2 views": {
        "encoder": (Net(), Net(), Net())
    },
    "optimizer(schedule) returned float, not an optax.GradientTransformation": {
        "optimizer": lambda schedule: 0.1
    },
    "optimizer <lambda> cannot update the parameters": {
        "optimizer": lambda schedule: optax.masked(optax.sgd(schedule), {"encoder": True})
    },
    "method Vector cannot take the outputs of 2 views": {"method": Vector()},
    "method Misspelled cannot take the outputs of 2 views: AttributeError: 'Outputs' object has no "
    "attribute 'embedings'": {"method": Misspelled()},
    "augmentation.plain cannot take the data, {series: float32 [16, 20, 3]}: KeyError: 'x'": {
        "augmentation": Augmentation(views=(series, series), plain=lambda batch: batch["x"])
    },
    "data.mean is for images, and 'arrays' has other data": {
        "data": dataclasses.replace(DATA, mean=(0.5,), std=(1.0,))
    },
}


compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
)


@pytest.mark.parametrize("told", MISFITS)
def test_a_part_that_does_not_fit_is_named(told):
    compiled.clear()
    with pytest.raises(UserError) as refused:
        open_session(config(**MISFITS[told]))
    assert told in str(refused.value) and "\n" not in str(refused.value)
    assert compiled == []


WRONG = {
    "encoder must be an encoder of jaxclr.encoders": {"encoder": 3},
    "got the class SmallConv. Call it: SmallConv(...)": {"encoder": SmallConv},
    "Give encoders.Nnx(factory), whose factory returns the module": {
        "encoder": nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    },
    "data must be jaxclr.Data, data.Arrays or data.Source, got ndarray": {"data": np.zeros((4, 2))},
    "augmentation must be Augmentation, got tuple": {"augmentation": (series, series)},
    "optimizer must be a spec": {"optimizer": optax.sgd(0.1)},
    "method must be Method, got str": {"method": "simclr"},
}


@pytest.mark.parametrize("told", WRONG)
def test_what_is_no_part_is_refused_when_a_configuration_is_built(told):
    with pytest.raises((UserError, AttributeError)) as refused:
        dataclasses.replace(config(), **WRONG[told])
    assert told.split(",")[0].split(" must")[0] in str(refused.value)


ARRAYS = {
    "needs the same number of rows in every array": lambda: Arrays(
        {"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}
    ),
    "has type <U1; give numbers": lambda: Arrays(np.array(["a", "b"])),
    "has shape (0, 2); give [N, ...], N > 0": lambda: Arrays(np.zeros((0, 2))),
    "labels must have shape [3], one label per row, got [2]": lambda: Arrays(
        np.zeros((3, 2)), labels=[0, 1]
    ),
    "labels must be integers from 0 to 1": lambda: Arrays(
        np.zeros((3, 2)), labels=[0, 1, 2], classes=("a", "b")
    ),
    "labels must be integers or strings, got float64": lambda: Arrays(
        np.zeros((2, 2)), labels=[0.5, 1]
    ),
    "train and test rows of one shape and type": lambda: Arrays(
        np.zeros((3, 2)), test=np.zeros((3, 4))
    ),
    "test_labels without test": lambda: Arrays(np.zeros((3, 2)), test_labels=[0, 1, 2]),
    "must have len() and [i]": lambda: Source(iter([1])),
    "dicts of arrays, with an optional integer 'label', got int items": lambda: Source([1, 2]),
    "has no items": lambda: Source([]),
}


@pytest.mark.parametrize("told", ARRAYS)
def test_data_that_do_not_fit_are_refused(told):
    with pytest.raises(UserError) as refused:
        ARRAYS[told]()
    assert told in str(refused.value)


class Unsynchronized(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x.mean(1)))


ALONE = {
    "SimClr compares the images of a batch, and batch_size is 1": (1, {"batch_size": 1}),
    "BarlowTwins compares the images of a batch": (1, {"batch_size": 1, "method": BarlowTwins()}),
    "The norm projector/norm_0 sees one row of each device, and the norm of one row is constant": (
        1,
        {"batch_size": 1, "method": Byol()},
    ),
    "The norm projector/norm_0 sees one row of each device and a micro-batch": (
        1,
        {"batch_size": 4, "micro_batches": 4},
    ),
    "The norm encoder/BatchNorm_0 sees one row": (
        8,
        {"batch_size": 8, "encoder": Unsynchronized()},
    ),
}


@pytest.mark.parametrize("told", ALONE)
def test_a_row_alone_is_refused_where_others_are_needed(told, monkeypatch):
    devices, changes = ALONE[told]
    monkeypatch.setattr(runtime, "devices", lambda: jax.devices()[:devices])
    with pytest.raises(UserError) as refused:
        open_session(config(**changes))
    assert told in str(refused.value)


def test_a_row_alone_is_enough_without_negatives_and_norms(monkeypatch):
    assert open_session(config(batch_size=8)).recipe.batch_size == 8  # norms span 8 devices
    monkeypatch.setattr(runtime, "devices", lambda: jax.devices()[:1])
    plain = Byol(projector=Mlp(1, out=8), predictor=Mlp(1, out=8))
    session = open_session(config(batch_size=1, method=plain))
    assert session.recipe.batch_size == 1


def test_what_fits_is_not_refused():
    session = open_session(config())
    assert session.recipe.mean is None
    assert session.example_shapes(5)["series"].shape == (5, 20, 3)
