"""A row of the evidence, which is plain data, and the configuration that it stands for."""

import dataclasses
import functools
import re
from typing import Any

import cifar10
import digits
import numpy as np

from jaxclr.augment import AUGMENTATIONS, with_views
from jaxclr.data import Arrays, Data, load
from jaxclr.encoders import SmallConv
from jaxclr.methods import MomentumEncoder, Shared, StopGradient
from jaxclr.training import Config, Sgd

from .methods import Supervised, local

RAW, UNTRAINED, SUPERVISED = "raw pixels", "untrained", "supervised"
BASELINES = (RAW, UNTRAINED)  # nothing is trained
HELD_OUT = 0.2  # share of the training images on which hyper-parameters are chosen
VALIDATION = "-validation"  # ends the name of data whose test images are those
TARGETS = {
    "shared": Shared(),
    "stop_gradient": StopGradient(),
    "momentum": MomentumEncoder(momentum=0.99),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One run; `changes` says by dotted name what differs from the recipe of its data."""

    study: str
    method: str
    setting: str = ""
    data: str = "digits"
    seed: int = 0
    devices: int = 1
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.study, self.method, self.setting, self.seed

    @property
    def name(self) -> str:
        """The key as a path."""
        words = "-".join(filter(None, (self.method, self.setting, str(self.seed))))
        return f"{self.study}/{re.sub(r'[^A-Za-z0-9.-]+', '_', words)}"


def config(row: Row, tfds: str | None = None) -> Config:
    """The configuration of a row; `tfds` is the folder of data that TFDS has prepared."""
    result = recipe(row.data, row.method)
    for path, value in row.changes.items():
        result = changed(result, path, value)
    return dataclasses.replace(result, data=data_of(row.data, tfds), seed=row.seed)


def recipe(data: str, method: str) -> Config:
    """What all rows of this data and method have in common."""
    known = "simclr" if method in (*BASELINES, SUPERVISED) else method
    made = (_digits if data.startswith("digits") else _cifar10)(known)
    if method != SUPERVISED:
        return made
    return dataclasses.replace(made, method=Supervised(projector=made.method.projector))


def _digits(method: str) -> Config:
    return dataclasses.replace(
        digits.config(method), evaluate_every=5, observe_every=50, checkpoint_every=20
    )


CIFAR_ENCODER = SmallConv(widths=(64, 128, 256), patch=4)

# What fits embeddings of 128: a batch with twice as many rows, and a weight for few pairs.
CIFAR_OWN = {"w_mse": {"whitening_size": 256}, "barlow_twins": {"off_diagonal": 0.1}}


def _cifar10(method: str) -> Config:
    """The recipes of cifar10.py with one optimizer, small heads and an encoder for two cores."""
    made = cifar10.config(method)
    return dataclasses.replace(
        made,
        method=made.method.with_heads(hidden=512, out=128).replace(**CIFAR_OWN.get(method, {})),
        encoder=CIFAR_ENCODER,
        augmentation=with_views(AUGMENTATIONS["cifar"], made.method.views),
        optimizer=Sgd(learning_rate=0.06, weight_decay=5e-4),
        epochs=20,
        batch_size=256,
        warmup_epochs=1.0,
        evaluate_every=1,
        observe_every=200,
        checkpoint_every=1,
    )


def changed(config: Config, path: str, value: Any) -> Config:
    """A configuration in which what the path names has this value.

    Beside the fields of a configuration, `views` is the number of views, `local` asks for losses of
    each device's own rows, and the target of a method is a name in TARGETS.
    """
    if path == "views":
        views = with_views(config.augmentation, value)
        return dataclasses.replace(config, augmentation=views)
    if path == "local":
        return dataclasses.replace(config, method=local(config.method)) if value else config
    return _replaced(config, path, TARGETS[value] if path == "method.target" else value)


def _replaced(part: Any, path: str, value: Any) -> Any:
    name, _, rest = path.partition(".")
    return dataclasses.replace(
        part, **{name: _replaced(getattr(part, name), rest, value) if rest else value}
    )


def value_at(part: Any, path: str) -> Any:
    """What a dotted name stands for; None for an unknown field."""
    for name in path.split("."):
        part = getattr(part, name, None)
    return part


def data_of(name: str, tfds: str | None) -> Any:
    """The data of a row: its own splits, or its training images in two parts."""
    whole = Data("digits") if name.startswith("digits") else Data("tfds:cifar10", dir=tfds)
    return held_out(whole) if name.endswith(VALIDATION) else whole


@functools.cache
def held_out(data: Data) -> Arrays:
    """The training images, of which a random part, always the same, is the test split."""
    dataset = load(data)
    examples, labels = dataset.train.examples, dataset.train.labels
    order = np.random.default_rng(0).permutation(len(labels))
    test, train = np.split(order, [round(HELD_OUT * len(labels))])
    return Arrays(
        examples[train], labels[train], examples[test], labels[test], classes=dataset.classes
    )
