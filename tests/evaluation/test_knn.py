"""Nearest neighbors against scikit-learn, whatever the tiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxclr.errors import UserError
from jaxclr.evaluation import knn_accuracy, knn_predict


def _clusters(count, width, classes, seed):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(7).normal(size=(classes, width))
    labels = rng.integers(0, classes, count)
    x = centers[labels] + 1.5 * rng.normal(size=(count, width))
    return x.astype(np.float32), labels


TRAIN_X, TRAIN_Y = _clusters(203, 12, 5, 0)
TEST_X, TEST_Y = _clusters(57, 12, 5, 1)


@pytest.mark.parametrize(
    ("k", "temperature", "tile"),
    [(1, 0.1, 1024), (20, 0.07, 50), (20, 1.0, 7), (203, 0.1, 64), (5, 0.5, 203), (9, 0.2, 1)],
)
def test_equals_scikit_learn(k, temperature, tile):
    oracle = KNeighborsClassifier(
        k,
        metric="cosine",
        algorithm="brute",
        weights=lambda distances: np.exp((1 - distances) / temperature),
    ).fit(TRAIN_X, TRAIN_Y)
    expected = oracle.predict(TEST_X)
    options = dict(classes=5, k=k, temperature=temperature, tile=tile)
    predicted = knn_predict(TRAIN_X, TRAIN_Y, TEST_X, **options)
    assert predicted.dtype == jnp.int32
    np.testing.assert_array_equal(predicted, expected)
    accuracy = knn_accuracy(TRAIN_X, TRAIN_Y, TEST_X, TEST_Y, **options)
    assert accuracy == pytest.approx(np.mean(expected == TEST_Y))


def test_low_temperature_stays_finite_and_names_the_nearest():
    nearest = knn_predict(TRAIN_X, TRAIN_Y, TEST_X, classes=5, k=1, temperature=1.0)
    cold = knn_predict(TRAIN_X, TRAIN_Y, TEST_X, classes=5, k=50, temperature=1e-5)
    np.testing.assert_array_equal(cold, nearest)


def test_ties_go_to_the_lowest_class():
    train = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    predicted = knn_predict(
        train, np.array([2, 1, 0]), train[:1], classes=3, k=2, temperature=0.1, tile=2
    )
    assert predicted.tolist() == [1]


def test_scale_and_float_type_of_features_do_not_matter():
    plain = knn_predict(TRAIN_X, TRAIN_Y, TEST_X, classes=5, k=10, temperature=0.1)
    scaled = knn_predict(
        TRAIN_X.astype(np.float64) * 50, TRAIN_Y, TEST_X / 8, classes=5, k=10, temperature=0.1
    )
    np.testing.assert_array_equal(plain, scaled)


def test_no_buffer_of_all_pairs():
    from jaxclr.evaluation.knn import _predict

    shape = jax.ShapeDtypeStruct
    arguments = (shape((8192, 64), jnp.float32), shape((8192,), jnp.int32))
    compiled = _predict.lower(
        *arguments, shape((4096, 64), jnp.float32), 0.1, classes=10, k=20, tile=256, mesh=None
    ).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 2**20  # all pairs: 128 MiB


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(k=204), UserError, "k = 204 neighbors of 203"),
        (dict(k=0), ValueError, "must be positive"),
        (dict(temperature=0.0), ValueError, "must be positive"),
        (dict(classes=4), UserError, r"must be in 0\.\.3 \(4 classes\), got 0\.\.4"),
        (dict(train_y=TRAIN_Y[:5]), ValueError, r"train_y must be \[203\]"),
        (dict(test_y=TEST_Y * 1.0), ValueError, "must be integers"),
        (dict(test_x=TEST_X[:, :3]), ValueError, "differ in width: 12 and 3"),
        (dict(train_x=TRAIN_X[0]), ValueError, r"\[n, D\]"),
    ],
)
def test_refuses(change, error, message):
    arguments = dict(train_x=TRAIN_X, train_y=TRAIN_Y, test_x=TEST_X, test_y=TEST_Y)
    arguments |= dict(classes=5, k=5, temperature=0.1)
    with pytest.raises(error, match=message):
        knn_accuracy(**(arguments | change))
