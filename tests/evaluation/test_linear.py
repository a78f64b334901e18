"""Logistic regression and the probes against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from jaxclr.data import Data, load
from jaxclr.errors import UserError
from jaxclr.evaluation import (
    few_label_probe,
    fit_linear,
    linear_logits,
    linear_probe,
    standardize,
)


@pytest.fixture(scope="module")
def digits():
    dataset = load(Data())
    features = [split.examples.reshape(-1, 64) / 255.0 for split in (dataset.train, dataset.test)]
    return features[0], dataset.train.labels, features[1], dataset.test.labels


@pytest.fixture(scope="module")
def scaled(digits):
    train, test = standardize(jnp.asarray(digits[0]), jnp.asarray(digits[2]))
    return train, digits[1], test, digits[3]


def _oracle(x, y, l2, weight=None):
    x = np.asarray(x, np.float64)
    total = len(x) if weight is None else weight.sum()
    model = LogisticRegression(C=1 / (l2 * total), tol=1e-8, max_iter=5000)
    return model.fit(x, y, sample_weight=weight)


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_equals_scikit_learn(scaled, l2):
    train_x, train_y, test_x, test_y = scaled
    expected = _oracle(train_x, train_y, l2).predict_proba(np.asarray(test_x))
    fit = fit_linear(train_x, train_y, 10, l2)
    probabilities = softmax(np.asarray(linear_logits(fit, test_x)), axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    accuracy = np.mean(probabilities.argmax(1) == test_y)
    assert accuracy == np.mean(expected.argmax(1) == test_y)


def test_maps_over_l2_and_over_weights(scaled):
    train_x, train_y, test_x, _ = scaled
    rng = np.random.default_rng(0)
    weights = np.stack([rng.random(300) < 0.5, rng.random(300)]).astype(np.float32)
    l2 = jnp.array([0.1, 0.01])
    x, y = train_x[:300], jnp.asarray(train_y[:300])
    fits = jax.jit(
        jax.vmap(lambda weight, l2: fit_linear(x, y, 10, l2, sample_weight=weight))
    )(weights, l2)
    for index in range(2):
        oracle = _oracle(x, y, float(l2[index]), weights[index].astype(np.float64))
        fit = jax.tree.map(lambda leaf: leaf[index], fits)
        np.testing.assert_allclose(
            softmax(np.asarray(linear_logits(fit, test_x)), axis=1),
            oracle.predict_proba(np.asarray(test_x)),
            atol=1e-3,
        )


def test_a_start_changes_the_way_not_the_end(scaled):
    train_x, train_y, _, _ = scaled
    near = fit_linear(train_x, train_y, 10, 0.3)
    fits = [fit_linear(train_x, train_y, 10, 0.1, start=start) for start in (None, near)]
    np.testing.assert_allclose(fits[0].weights, fits[1].weights, atol=2e-4)


def test_fit_refuses_shapes():
    x = jnp.ones((4, 2))
    with pytest.raises(ValueError, match=r"y must be \[4\]"):
        fit_linear(x, jnp.zeros(3, jnp.int32), 2, 0.1)
    with pytest.raises(ValueError, match=r"sample_weight must be \[4\]"):
        fit_linear(x, jnp.zeros(4, jnp.int32), 2, 0.1, sample_weight=jnp.ones(3))
    with pytest.raises(ValueError, match=r"x must be \[n, D\]"):
        fit_linear(x[0], jnp.zeros(2, jnp.int32), 2, 0.1)


def test_standardize():
    rng = np.random.default_rng(0)
    train = rng.normal(3, 5, (50, 4)).astype(np.float32)
    train[:, 2] = 1e3 / 7
    other = rng.normal(size=(9, 4)).astype(np.float32)
    scaled_train, scaled_other = standardize(jnp.asarray(train), jnp.asarray(other))
    std = train.std(0)
    std[2] = 1
    np.testing.assert_allclose(scaled_train, (train - train.mean(0)) / std, atol=1e-4)
    np.testing.assert_allclose(scaled_other, (other - train.mean(0)) / std, atol=1e-4)
    with pytest.raises(ValueError, match="differ in width: 4 and 3"):
        standardize(jnp.asarray(train), jnp.asarray(other[:, :3]))


def test_linear_probe(digits):
    result = linear_probe(*digits, classes=10, seed=0)
    assert result.l2 == result.grid[int(np.argmax(result.validation))]
    assert result == linear_probe(*digits, classes=10, seed=0)
    train, test = standardize(jnp.asarray(digits[0]), jnp.asarray(digits[2]))
    expected = _oracle(train, digits[1], result.l2).score(np.asarray(test), digits[3])
    assert result.accuracy == pytest.approx(expected, abs=1 / 360 + 1e-9)
    assert result.accuracy > 0.95


@pytest.mark.parametrize("width", [64, 20], ids=["in the span of the rows", "in all features"])
def test_few_label_probe(digits, width):
    train_x, train_y, test_x, test_y = digits
    train_x, test_x = train_x[:, 20 : 20 + width], test_x[:, 20 : 20 + width]
    if width == 64:
        train_x, test_x = digits[0], digits[2]
    options = dict(classes=10, per_class=5, draws=3, seed=1)
    result = few_label_probe(train_x, train_y, test_x, test_y, **options)
    assert result == few_label_probe(train_x, train_y, test_x, test_y, **options)
    assert len(result.accuracies) == 3
    assert result.mean == pytest.approx(np.mean(result.accuracies))
    assert result.std == pytest.approx(np.std(result.accuracies, ddof=1))
    # The same draws, fitted by scikit-learn in all features.
    from jaxclr.evaluation.probe import draw_few

    train, test = (np.asarray(x) for x in standardize(jnp.asarray(train_x), jnp.asarray(test_x)))
    for (rows, held_out), accuracy in zip(draw_few(train_y, 10, 5, 3, 1), result.accuracies):
        assert np.bincount(train_y[rows]).tolist() == [5] * 10
        assert not set(rows) & set(held_out)
        expected = _oracle(train[rows], train_y[rows], result.l2).score(test, test_y)
        assert accuracy == pytest.approx(expected, abs=2 / 360 + 1e-9)


def test_test_labels_choose_nothing(digits):
    train_x, train_y, test_x, test_y = digits
    options = dict(classes=10, per_class=2, draws=2, seed=0, grid=(1.0, 0.01))
    honest = few_label_probe(train_x, train_y, test_x, test_y, **options)
    other = few_label_probe(train_x, train_y, test_x, (test_y + 1) % 10, **options)
    assert (honest.l2, honest.validation) == (other.l2, other.validation)


def test_probes_refuse(digits):
    train_x, train_y, test_x, test_y = digits
    few = dict(classes=10, seed=0)
    with pytest.raises(UserError, match="500 labels per class are asked for, but class"):
        few_label_probe(train_x, train_y, test_x, test_y, per_class=500, **few)
    with pytest.raises(UserError, match="Class 10 has no training rows"):
        few_label_probe(train_x, train_y, test_x, test_y, classes=11, per_class=1, seed=0)
    with pytest.raises(ValueError, match="must be positive"):
        few_label_probe(train_x, train_y, test_x, test_y, per_class=0, **few)
    one = np.array([np.flatnonzero(train_y == label)[0] for label in range(10)])
    with pytest.raises(UserError, match="none is left to choose l2 on"):
        few_label_probe(train_x[one], train_y[one], test_x, test_y, per_class=1, **few)
    with pytest.raises(UserError, match="at least 2 training rows"):
        linear_probe(train_x[:1], train_y[:1], test_x, test_y, **few)
    with pytest.raises(UserError, match="train labels must be in 0..4"):
        linear_probe(train_x, train_y, test_x, test_y, classes=5, seed=0)
