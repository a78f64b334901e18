"""A few labels per class: ridge regression against scikit-learn, draws, and what chooses alpha."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from jaxclr.data import Data, load
from jaxclr.errors import UserError
from jaxclr.evaluation import feature_scale, few_label_probe
from jaxclr.evaluation.few_labels import decompose, draw_few, scores


@pytest.fixture(scope="module")
def digits():
    dataset = load(Data())
    features = [
        split.examples.reshape(-1, 64).astype(np.float32) / 255
        for split in (dataset.train, dataset.test)
    ]
    return features[0], dataset.train.labels, features[1], dataset.test.labels


def standardized(digits):
    mean, std = feature_scale(digits[0])
    return (digits[0] - mean) / std, (digits[2] - mean) / std


def oracle_of(x, y, alpha):
    return Ridge(alpha=alpha).fit(x.astype(np.float64), np.eye(10)[y])


def test_ridge_equals_scikit_learn(digits):
    (train, test), labels = standardized(digits), digits[1]
    for rows in (np.arange(30), np.arange(200)):
        ridge = decompose(train[rows], labels[rows], classes=10)
        for alpha in (0.1, 100.0):
            expected = oracle_of(train[rows], labels[rows], alpha).predict(test)
            np.testing.assert_allclose(scores(ridge, test, alpha), expected, atol=5e-3)


def test_every_draw_is_that_of_scikit_learn(digits):
    options = dict(classes=10, per_class=5, draws=3, seed=1)
    result = few_label_probe(*digits, **options)
    assert result == few_label_probe(*digits, **options)
    assert result != few_label_probe(*digits, **(options | {"seed": 2}))
    assert result.alpha == result.grid[int(np.argmax(result.validation))]
    assert len(result.accuracies) == 3
    assert result.mean == pytest.approx(np.mean(result.accuracies))
    assert result.std == pytest.approx(np.std(result.accuracies, ddof=1))
    (train, test), (_, train_y, _, test_y) = standardized(digits), digits
    draws = draw_few(train_y, 10, 5, 3, 1)
    for (rows, held_out), accuracy in zip(draws, result.accuracies, strict=True):
        assert np.bincount(train_y[rows]).tolist() == [5] * 10
        assert not set(rows) & set(held_out)
        predicted = oracle_of(train[rows], train_y[rows], result.alpha).predict(test).argmax(axis=1)
        assert accuracy == pytest.approx(np.mean(predicted == test_y), abs=1 / 360 + 1e-9)


def test_test_labels_choose_nothing(digits):
    train_x, train_y, test_x, test_y = digits
    options = dict(classes=10, per_class=5, draws=2, seed=0, grid=(10.0, 1e30))
    honest = few_label_probe(train_x, train_y, test_x, test_y, **options)
    other = few_label_probe(train_x, train_y, test_x, (test_y + 1) % 10, **options)
    assert honest.alpha == other.alpha == 10.0 and honest.validation == other.validation


def test_refuses(digits):
    train_x, train_y, test_x, test_y = digits
    with pytest.raises(UserError, match="500 labels per class are asked for, but class"):
        few_label_probe(*digits, per_class=500, classes=10, seed=0)
    with pytest.raises(UserError, match="Class 10 has no training rows"):
        few_label_probe(*digits, classes=11, per_class=1, seed=0)
    with pytest.raises(ValueError, match="must be positive"):
        few_label_probe(*digits, per_class=0, classes=10, seed=0)
    one = np.array([np.flatnonzero(train_y == label)[0] for label in range(10)])
    with pytest.raises(UserError, match="none is left to choose alpha on"):
        few_label_probe(train_x[one], train_y[one], test_x, test_y, per_class=1, classes=10, seed=0)
