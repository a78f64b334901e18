"""Features over devices give the numbers of features on the host, and so do protocols."""

import jax
import numpy as np
import pytest
from distributed import mesh
from evaluated import evaluated
from tiny import opened, tiny_config

from jaxclr.data import Split
from jaxclr.evaluation import feature_scale, few_label_probe, fit_linear, knn_predict, linear_probe
from jaxclr.evaluation.features import host_rows, shard_rows
from jaxclr.evaluation.protocols import ClusterAgreement, FineTune, fine_tuning
from jaxclr.steps import examples

RNG = np.random.default_rng(0)
CENTERS = RNG.normal(size=(4, 12))


def clusters(count):
    """Rows of which many are alike, four of five with a label."""
    labels = RNG.integers(0, 4, count)
    x = np.round(CENTERS[labels] + RNG.normal(size=(count, 12))).astype(np.float32)
    x[count // 2 :] = x[: count - count // 2]
    x[:, 3] = 0.1
    return x, np.where(np.arange(count) % 5 == 4, -1, labels).astype(np.int32)


TRAIN, TRAIN_Y = clusters(2000)
TEST, TEST_Y = clusters(504)
DEVICES = (1, 2, 8)


def over(devices, *arrays):
    return [shard_rows(array, mesh(devices)) for array in arrays]


@pytest.mark.parametrize("k, tile", [(1, 1024), (30, 50)])
def test_neighbors_with_ties_are_those_of_the_host(k, tile):
    settings = dict(classes=4, k=k, temperature=0.1, tile=tile)
    known = TRAIN_Y >= 0
    want = knn_predict(TRAIN[known], TRAIN_Y[known], TEST, **settings)
    # The second half has other labels: which of two equal rows is the nearer decides.
    for devices in DEVICES:
        train, test = over(devices, TRAIN, TEST)
        np.testing.assert_array_equal(knn_predict(train, TRAIN_Y, test, **settings), want)
    np.testing.assert_array_equal(knn_predict(train, TRAIN_Y, TEST, **settings), want)


def test_a_linear_classifier_has_the_same_bits_on_any_devices():
    weight = (TRAIN_Y >= 0).astype(np.float32)
    fits = []
    for devices in DEVICES:
        (train,) = over(devices, TRAIN)
        scale = feature_scale(train, weight)
        for part, want in zip(scale, feature_scale(TRAIN[TRAIN_Y >= 0]), strict=True):
            np.testing.assert_allclose(part, want, rtol=1e-6)
        fits.append(fit_linear(train, TRAIN_Y, 4, 1e-3, sample_weight=weight, scale=scale))
        for part, want in zip(fits[-1], fits[0], strict=True):
            np.testing.assert_array_equal(part, want)
    assert scale.std[3] == 1  # of a constant feature
    host = fit_linear(TRAIN, TRAIN_Y, 4, 1e-3, sample_weight=weight, scale=scale)
    np.testing.assert_allclose(fits[0].weights, host.weights, atol=1e-5)


@pytest.mark.parametrize("probe", [linear_probe, few_label_probe])
def test_probes_are_those_of_the_host(probe):
    settings = dict(classes=4, seed=0, grid=(1.0, 0.01))
    if probe is few_label_probe:
        settings |= dict(per_class=3, draws=2)
    known, judged = TRAIN_Y >= 0, TEST_Y >= 0
    want = probe(TRAIN[known], TRAIN_Y[known], TEST[judged], TEST_Y[judged], **settings)
    train, test = over(8, TRAIN, TEST)
    found = probe(train, TRAIN_Y, test, TEST_Y, **settings)
    for name, value in want._asdict().items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-6), name


@pytest.fixture(scope="module")
def subjects():
    """A tiny encoder and 300 images, on one device and on eight."""
    session, state = opened(tiny_config())
    train, test = session.dataset.train, session.dataset.test
    few = session.dataset._replace(
        train=Split(train.examples[:300], train.labels[:300]),
        test=Split(test.examples[:60], test.labels[:60]),
    )
    there = lambda devices: session._replace(mesh=mesh(devices), dataset=few).subject(state)
    return there(1), there(8)


def test_an_encoder_is_evaluated_alike_on_eight_devices(subjects):
    one, eight = (evaluated(subject) for subject in subjects)
    assert set(one) == set(eight)
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=0, atol=1e-6 * ("features" in name))


def test_features_that_do_not_fit_a_device_stay_on_the_host(subjects, monkeypatch):
    one, _ = subjects
    want = one.represent(one.train)
    monkeypatch.setattr(examples, "_room", lambda *_: [])
    found = one.represent(one.train)
    assert isinstance(found.values, np.ndarray) and isinstance(want.values, jax.Array)
    for part, other in zip(found, want, strict=True):
        np.testing.assert_array_equal(part, other)


def test_k_means_is_shared_out(subjects):
    found = [ClusterAgreement(restarts=3, iterations=5).run(subject, 0) for subject in subjects]
    assert found[0] == found[1]


@pytest.mark.parametrize("batch", [16, 9])
def test_a_step_of_fine_tuning_is_that_of_one_device(subjects, batch):
    """Also where the devices do not divide the batch."""
    settings = FineTune(epochs=1, least_steps=2, batch_size=batch)
    rows = np.arange(batch)
    tuned = [
        fine_tuning._train(subject, rows, rate=0.1, settings=settings, batch=batch, seed=0)
        for subject in subjects
    ]
    close = lambda some, other: np.testing.assert_allclose(
        host_rows(other), host_rows(some), atol=2e-5
    )
    jax.tree.map(close, *tuned)
