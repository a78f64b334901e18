"""Protocols against scikit-learn, on features and on a tiny encoder; what they draw, choose and refuse."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from jaxclr.data import Data, Split, load
from jaxclr.encoders import SmallConv
from jaxclr.errors import UserError
from jaxclr.evaluation.protocols import (
    PROTOCOLS,
    Arc,
    ClusterAgreement,
    Features,
    FewShot,
    FineTune,
    Knn,
    Linear,
    Semi,
    Subject,
    clusters,
    tuning,
)
from jaxclr.evaluation.protocols.base import moments
from jaxclr.evaluation.protocols.clusters import agreement
from jaxclr.evaluation.protocols.fewshot import decompose, scores
from jaxclr.evaluation.protocols.finetune import draw_share
from jaxclr.evaluation.protocols.linear import probe
from jaxclr.evaluation.protocols.tuning import hold_out, tune


@pytest.fixture(scope="module")
def dataset():
    return load(Data())


@functools.cache
def encoder_and_variables():
    encoder = SmallConv(widths=(4, 8)).build(None)
    return encoder, encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), False)


def to_pixels(images):
    return images.astype(jnp.float32) / 255


def unchanged(keys, images):
    return to_pixels(images)


def flattened(split):
    return Features(split.examples.reshape(split.size, -1).astype(np.float32) / 255, split.labels)


def subject_of(train, test, represent=flattened, **changes):
    """Pixels as features, and a tiny encoder to fine-tune."""
    encoder, variables = encoder_and_variables()
    subject = Subject(
        train=train,
        test=test,
        classes=tuple("0123456789"),
        size=None,
        represent=represent,
        encoder=encoder,
        variables=variables,
        plain=to_pixels,
        augmented=unchanged,
        embed_views=None,
    )
    return dataclasses.replace(subject, **changes)


@pytest.fixture(scope="module")
def digits(dataset):
    return subject_of(dataset.train, dataset.test)


def scaled(subject):
    train, test = subject.features
    mean, std = moments(train.values)
    return (train.values - mean) / std, train.labels, (test.values - mean) / std, test.labels


def first(split, count):
    return Split(split.examples[:count], split.labels[:count])


def test_moments_equal_numpy():
    x = np.random.default_rng(0).normal(3, 2, (9000, 5)).astype(np.float32)
    x[:, 3] = 0.1
    mean, std = moments(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, [*x[:, :3].std(0), 1, x[:, 4].std()], rtol=1e-5)


def test_features_are_embedded_once(dataset):
    calls = []

    def represent(split):
        calls.append(split.size)
        return flattened(split)

    subject = subject_of(first(dataset.train, 300), first(dataset.test, 50), represent)
    for seed in range(2):
        Knn(k=3).run(subject, seed)
    assert calls == [300, 50]


def test_knn_equals_scikit_learn(digits):
    train, test = digits.features
    oracle = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.1)
    ).fit(*train)
    found = Knn(k=7, temperature=0.1).run(digits, 0)
    assert found.figures["accuracy"] == (pytest.approx(oracle.score(*test)),)


def test_linear_comes_close_to_scikit_learn(digits):
    """Over splits: one of 360 test images is 0.28 points."""
    x = np.concatenate([features.values for features in digits.features])
    y = np.concatenate([features.labels for features in digits.features])
    ours, theirs = [], []
    for split in range(4):
        order = np.random.default_rng(split).permutation(len(x))
        train, test = (Features(x[rows], y[rows]) for rows in np.split(order, [1437]))
        ours.append(probe(train, test, Linear(), classes=10, seed=0)[0])
        mean, std = moments(train.values)
        oracle = LogisticRegression(max_iter=1000).fit((train.values - mean) / std, train.labels)
        theirs.append(oracle.score((test.values - mean) / std, test.labels))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.003)


def test_test_labels_choose_no_learning_rate(digits):
    train, test = digits.features
    settings = Linear(learning_rates=(1e-4, 0.3, 1e8), epochs=5)
    accuracy, chosen = probe(train, test, settings, classes=10, seed=1)
    assert chosen == {"learning rate": 0.3} and accuracy > 0.9
    other = Features(test.values, (test.labels + 1) % 10)
    assert probe(train, other, settings, classes=10, seed=1)[1] == chosen


def test_no_learning_rate_is_chosen_on_rows_that_it_was_trained_on():
    """Rows that have nothing in common: what is learned of them by heart says nothing of others."""
    features = Features(np.eye(64, dtype=np.float32), np.arange(64, dtype=np.int32) % 4)
    _, chosen = probe(features, features, Linear(learning_rates=(1e-6, 1.0)), classes=4, seed=0)
    assert chosen == {"learning rate": 1e-6}


def test_the_ridge_of_a_linear_classifier_is_scikit_learns(digits):
    train_x, train_y, test_x, test_y = scaled(digits)
    accuracy = lambda l2: probe(*digits.features, Linear(learning_rates=(0.1,), l2=l2), classes=10, seed=0)[0]
    oracle = LogisticRegression(C=1e-4, max_iter=1000).fit(train_x, train_y).score(test_x, test_y)
    assert accuracy(1e4) == pytest.approx(oracle, abs=0.01) and accuracy(0.0) > oracle + 0.02


def test_ridge_equals_scikit_learn(digits):
    train_x, train_y, test_x, _ = scaled(digits)
    for rows in (np.arange(30), np.arange(200)):
        ridge = decompose(train_x[rows], train_y[rows], classes=10)
        for alpha in (0.1, 100.0):
            oracle = Ridge(alpha=alpha).fit(train_x[rows].astype(np.float64), np.eye(10)[train_y[rows]])
            np.testing.assert_allclose(scores(ridge, test_x, alpha), oracle.predict(test_x), atol=5e-3)


def test_few_shots_are_drawn_per_class_and_repeat(digits):
    protocol = FewShot(per_class=(1, 5), draws=4, strengths=(1.0, 10.0))
    found = protocol.run(digits, 0)
    assert {name: len(values) for name, values in found.figures.items()} == {"1 label": 4, "5 labels": 4}
    assert np.mean(found.figures["5 labels"]) > np.mean(found.figures["1 label"]) > 0.4
    assert found == protocol.run(digits, 0) and found != protocol.run(digits, 1)
    assert found.chosen["5 labels"]["ridge"] in (1.0, 10.0)


def test_test_labels_choose_no_ridge(digits):
    protocol = FewShot(per_class=(5,), draws=2, strengths=(10.0, 1e30))
    wrong = Features(digits.features[1].values, (digits.features[1].labels + 1) % 10)
    other = types.SimpleNamespace(features=(digits.features[0], wrong), classes=digits.classes)
    for subject in (digits, other):
        assert protocol.run(subject, 0).chosen == {"5 labels": {"ridge": 10.0}}


def test_agreement_equals_scikit_learn_and_knows_no_names():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    clusters = np.where(rng.random(200) < 0.7, (labels + 1) % 4, rng.integers(0, 6, 200))
    found = agreement(labels, clusters)
    assert found["NMI"] == (pytest.approx(metrics.normalized_mutual_info_score(labels, clusters)),)
    assert found["ARI"] == (pytest.approx(metrics.adjusted_rand_score(labels, clusters)),)
    assert agreement(labels, (labels + 2) % 4)["accuracy"] == (1.0,)
    assert agreement(labels, np.zeros(200, int))["accuracy"] == (np.bincount(labels).max() / 200,)


def test_clusters_of_digits_are_as_good_as_scikit_learns(digits):
    from sklearn.cluster import KMeans

    found = ClusterAgreement(restarts=4).run(digits, 0).figures
    train, test = (x.values / np.linalg.norm(x.values, axis=1, keepdims=True) for x in digits.features)
    oracle = KMeans(10, n_init=4, random_state=0).fit(train)
    expected = agreement(digits.features[1].labels, oracle.predict(test))
    assert found["NMI"][0] == pytest.approx(expected["NMI"][0], abs=0.05)


def test_the_tightest_clusters_are_taken(digits, monkeypatch):
    train, test = digits.features
    means = jnp.stack([train.values[train.labels == label].mean(axis=0) for label in range(10)])
    tries = iter([(jnp.float32(3), means[:1]), (jnp.float32(1), means), (jnp.float32(2), means[:1])])
    monkeypatch.setattr(clusters, "_fit", lambda *_: next(tries))
    assert ClusterAgreement(restarts=3).run(digits, 0).figures["NMI"][0] > 0.5


def test_shares_and_held_out_rows_keep_every_class():
    labels = np.repeat(np.arange(5), [3, 50, 100, 200, 8])
    rows = draw_share(labels, 0.1, seed=0)
    assert np.bincount(labels[rows]).tolist() == [1, 5, 10, 20, 1]
    assert rows.tolist() != draw_share(labels, 0.1, seed=1).tolist()
    out = hold_out(labels[rows], 0.2, seed=0)
    assert len(out) == 7
    assert set(np.delete(labels[rows], out)) == set(range(5))
    assert len(hold_out(np.arange(5), 0.2, seed=0)) == 0


def test_fine_tuning_learns_and_chooses_on_labelled_images(dataset):
    subject = subject_of(dataset.train, first(dataset.test, 250))
    labels = dataset.train.labels
    settings = FineTune(learning_rates=(1e-6, 1.0), epochs=20, batch_size=64)
    rows = np.arange(0, len(labels), 3)
    accuracy, chosen = tune(subject, rows, labels[rows], settings, seed=0)
    assert chosen == {"learning rate": 1.0} and accuracy > 0.6
    found = Semi(learning_rates=(1.0,), shares=(0.05,), epochs=20, batch_size=64).run(subject, 0)
    assert found.chosen == {"5% of labels": {"learning rate": 1.0}}
    assert 0.15 < found.figures["5% of labels"][0] < accuracy
    with pytest.raises(UserError, match="diverged at a learning rate of 1e"):
        tune(subject, rows, labels[rows], dataclasses.replace(settings, learning_rates=(1e30,)), seed=0)


def test_fine_tuning_is_judged_on_what_it_has_not_seen(dataset, monkeypatch):
    subject = subject_of(dataset.train, dataset.test)
    rows, labels = np.arange(10, 110), dataset.train.labels[10:110]
    judged = []

    def accuracy(subject, tuned, split, some):
        judged.append((split, some, tuned))
        return {0.1: 0.2, 0.2: 0.9, 0.3: 0.5}[tuned["rate"]]

    monkeypatch.setattr(tuning, "_train", lambda subject, rows, *, rate, **_: {"rate": rate, "rows": rows})
    monkeypatch.setattr(tuning, "_accuracy", accuracy)
    assert tune(subject, rows, labels, FineTune(learning_rates=(0.1, 0.2, 0.3)), seed=0) == (0.9, {"learning rate": 0.2})
    *tried, (split, some, tuned) = judged
    assert split is subject.test and some is None and tuned["rows"].tolist() == rows.tolist()
    for split, some, tuned in tried:
        assert split is subject.train and sorted([*some, *tuned["rows"]]) == rows.tolist()


def test_arc_tells_a_network_that_knows_images_from_one_that_does_not(dataset):
    def embed_views(keys, images, count):
        apart = jnp.eye(len(images), 512)
        mixed = jax.random.normal(jax.random.key(0), (count, len(images), 8))
        return jnp.stack([apart] * count), mixed

    subject = subject_of(first(dataset.train, 100), None, embed_views=embed_views)
    found = Arc(images=1000, views=3).run(subject, 0).figures
    assert found["ACR"] == (0.0,)
    untrained = found["ACR untrained"][0]
    assert 0.9 < untrained < 1 and found["ARC"][0] == pytest.approx(1 / (1 - untrained), rel=1e-5)


def nan_features(split):
    features = flattened(split)
    features.values[1, 0] = np.nan
    return features


def without(split, label):
    kept = split.labels != label
    return Split(split.examples[kept], split.labels[kept])


def test_refuses(dataset):
    train, test = first(dataset.train, 40), first(dataset.test, 20)
    whole = subject_of(train, test)
    lacking = subject_of(without(train, 7), test)
    broken = subject_of(train, test, nan_features)
    cases = [
        (Knn(k=41), whole, "k = 41 neighbours of 40 training rows"),
        (ClusterAgreement(clusters=41), whole, "41 clusters of 40 training images"),
        (Knn(k=2), lacking, "Class '7' is in the test split but not in the training split"),
        (FineTune(), lacking, "Class '7' is in the test split but not in the training split"),
        (Linear(), broken, r"1 of 40 training images have features that are not finite \(NaN\)"),
        (FewShot(per_class=(30,)), whole, "30 labels per class are asked for, but class"),
    ]
    for protocol, subject, message in cases:
        with pytest.raises(UserError, match=message):
            protocol.run(subject, 0)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_settings_out_of_range_are_refused(name):
    bad = {int: 0, float: -1.0, tuple: ()}
    for field in dataclasses.fields(PROTOCOLS[name]):
        wrong = 0 if field.name == "clusters" else bad[type(field.default)]
        with pytest.raises(UserError, match=f"{field.name} must be"):
            PROTOCOLS[name](**{field.name: wrong})
