"""Runs in buckets."""

import io
import json

import numpy as np
import pytest
import rich.console
from tiny import tiny_config

import jaxclr
from jaxclr.data import Data
from jaxclr.paths import expanded
from jaxclr.runs.checkpoints import read_digests


def quiet():
    return rich.console.Console(file=io.StringIO())


STEPS = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(path, images=images, labels=np.arange(40) % 2)
    data = Data(f"npz:{path}", mean=(0.5,), std=(0.3,), test_fraction=0.2)
    changes = {"data": data, "steps": STEPS, "log_every": 1, "checkpoint_every": 1}
    return tiny_config(**changes)


def contents(folder):
    folder = expanded(folder)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {
        "leaves": read_digests(folder / "checkpoints", STEPS),
        "metrics": [
            {name: value for name, value in line.items() if "second" not in name} for line in lines
        ],
        "evaluation": json.loads((folder / "evaluation.json").read_text()),
    }


@pytest.fixture(scope="module")
def local(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "local"
    jaxclr.train(config, folder, console=quiet())
    return folder


def test_same_bits(config, local, bucket):
    run = jaxclr.train(config, bucket, console=quiet())
    assert contents(bucket) == contents(local)
    assert run.metrics()["loss"].size == 4
