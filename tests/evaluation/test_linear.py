"""Logistic regression against scikit-learn, on blocks of rows that stay on the host."""

import jax
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from jaxclr.data import Data, load
from jaxclr.errors import UserError
from jaxclr.evaluation import feature_scale, fit_linear, linear, linear_logits, linear_probe


@pytest.fixture(scope="module")
def digits():
    dataset = load(Data())
    features = [
        split.examples.reshape(-1, 64).astype(np.float32) / 255
        for split in (dataset.train, dataset.test)
    ]
    return features[0], dataset.train.labels, features[1], dataset.test.labels


@pytest.fixture(scope="module")
def scaled(digits):
    return standardized(*digits)


def standardized(train_x, train_y, test_x, test_y):
    mean, std = feature_scale(train_x)
    return (train_x - mean) / std, train_y, (test_x - mean) / std, test_y


def oracle_of(x, y, l2, weight=None):
    x = np.asarray(x, np.float64)
    total = len(x) if weight is None else weight.sum()
    model = LogisticRegression(C=1 / (l2 * total), tol=1e-8, max_iter=5000)
    return model.fit(x, y, sample_weight=weight)


def probabilities(fit, x):
    return softmax(np.asarray(linear_logits(fit, jax.numpy.asarray(x))), axis=1)


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_equals_scikit_learn(scaled, l2):
    train_x, train_y, test_x, test_y = scaled
    expected = oracle_of(train_x, train_y, l2).predict_proba(test_x)
    found = probabilities(fit_linear(train_x, train_y, 10, l2), test_x)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.mean(found.argmax(1) == test_y) == np.mean(expected.argmax(1) == test_y)


@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_weights_and_scale_make_no_difference(digits, scaled, monkeypatch, weighted):
    monkeypatch.setattr(linear, "_ROWS", 128)
    rows = slice(300)
    weight = np.random.default_rng(0).random(300) * weighted + (not weighted)
    oracle = oracle_of(scaled[0][rows], scaled[1][rows], 0.1, weight)
    x, y, scale = digits[0][rows], digits[1][rows], feature_scale(digits[0])
    fit = fit_linear(x, y, 10, 0.1, sample_weight=weight, scale=scale)
    np.testing.assert_allclose(
        probabilities(fit, scaled[2]), oracle.predict_proba(scaled[2]), atol=1e-3
    )


def test_a_start_changes_the_way_not_the_end(scaled):
    train_x, train_y, _, _ = scaled
    near = fit_linear(train_x, train_y, 10, 0.3)
    fits = [fit_linear(train_x, train_y, 10, 0.1, start=start) for start in (None, near)]
    np.testing.assert_allclose(fits[0].weights, fits[1].weights, atol=2e-4)


def test_features_stay_on_the_host(digits, monkeypatch):
    """Nothing that reaches the device has more rows than a block."""
    monkeypatch.setattr(linear, "_ROWS", 256)
    seen, losses, scores = [], linear._losses, linear._scores
    watch = lambda function: lambda *args: (seen.append(len(args[1])), function(*args))[1]
    monkeypatch.setattr(linear, "_losses", watch(losses))
    monkeypatch.setattr(linear, "_scores", watch(scores))
    linear_probe(*digits, classes=10, seed=0, grid=(0.1, 0.01))
    assert max(seen) == 256 and min(seen) == 360 - 256


def test_fit_refuses_shapes():
    x = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match=r"y must be \[4\]"):
        fit_linear(x, np.zeros(3, np.int32), 2, 0.1)
    with pytest.raises(ValueError, match=r"sample_weight must be \[4\]"):
        fit_linear(x, np.zeros(4, np.int32), 2, 0.1, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"x must be \[n, D\]"):
        fit_linear(x[0], np.zeros(2, np.int32), 2, 0.1)


def test_scale_equals_numpy():
    x = np.random.default_rng(0).normal(3, 2, (9000, 5)).astype(np.float32)
    x[:, 3] = 0.1
    mean, std = feature_scale(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, [*x[:, :3].std(0), 1, x[:, 4].std()], rtol=1e-5)


def test_linear_probe(digits):
    result = linear_probe(*digits, classes=10, seed=0)
    assert result.l2 == result.grid[int(np.argmin(result.validation))]
    assert result == linear_probe(*digits, classes=10, seed=0)
    train_x, train_y, test_x, test_y = standardized(*digits)
    expected = oracle_of(train_x, train_y, result.l2).score(test_x, test_y)
    assert result.accuracy == pytest.approx(expected, abs=1 / 360 + 1e-9)
    assert result.accuracy > 0.95


def test_linear_probe_comes_close_to_scikit_learns_default(digits):
    """Over splits: one of 360 test images is 0.28 points."""
    x, y = np.concatenate(digits[::2]), np.concatenate(digits[1::2])
    ours, theirs = [], []
    for split in range(4):
        train, test = np.split(np.random.default_rng(split).permutation(len(x)), [1437])
        arrays = x[train], y[train], x[test], y[test]
        ours.append(linear_probe(*arrays, classes=10, seed=0).accuracy)
        train_x, train_y, test_x, test_y = standardized(*arrays)
        theirs.append(LogisticRegression(max_iter=1000).fit(train_x, train_y).score(test_x, test_y))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.003)


def test_held_out_rows_choose_l2_and_test_labels_do_not(digits):
    train_x, train_y, test_x, test_y = digits
    options = dict(classes=10, seed=1, grid=(100.0, 1e-2))
    honest = linear_probe(train_x, train_y, test_x, test_y, **options)
    other = linear_probe(train_x, train_y, test_x, (test_y + 1) % 10, **options)
    assert honest.l2 == 1e-2 and (honest.l2, honest.validation) == (other.l2, other.validation)
    # Rows that have nothing in common: what is learned by heart is no use for others.
    rows, labels = np.eye(64, dtype=np.float32), np.arange(64, dtype=np.int32) % 4
    alone = linear_probe(rows, labels, rows, labels, classes=4, seed=0, grid=(100.0, 1e-4))
    assert alone.l2 == 100.0


def test_linear_probe_refuses(digits):
    train_x, train_y, test_x, test_y = digits
    with pytest.raises(UserError, match="at least 2 training rows"):
        linear_probe(train_x[:1], train_y[:1], test_x, test_y, classes=10, seed=0)
    with pytest.raises(UserError, match="train labels must be in 0..4"):
        linear_probe(train_x, train_y, test_x, test_y, classes=5, seed=0)
