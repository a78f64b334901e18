"""Protocols against scikit-learn, on features and on a tiny encoder: draws, choices, errors."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from distributed import mesh
from sklearn import metrics
from sklearn.neighbors import KNeighborsClassifier
from tiny import opened, tiny_config

from jaxclr.data import Data, Dataset, Split, load
from jaxclr.errors import UserError
from jaxclr.evaluation.protocols import (
    PROTOCOLS,
    Arc,
    ClusterAgreement,
    FewShot,
    FineTune,
    Knn,
    Linear,
    Semi,
    arc,
    clusters,
    fine_tuning,
)
from jaxclr.evaluation.protocols.clusters import agreement
from jaxclr.evaluation.protocols.fine_tuning import draw_share, hold_out, tune


@pytest.fixture(scope="module")
def dataset():
    return load(Data())


def pixels_as_features(_, images):
    return images.reshape(len(images), -1).astype(np.float32) / 255


def subject_of(train, test, embed=pixels_as_features):
    """Pixels as features, and a tiny encoder to fine-tune, on two devices."""
    session, state = opened(tiny_config())
    classes = tuple("0123456789")
    dataset = Dataset("digits", train, test, classes, ())
    subject = session._replace(mesh=mesh(2)).subject(state)
    return dataclasses.replace(subject, embed=embed, dataset=dataset)


@pytest.fixture(scope="module")
def digits(dataset):
    return subject_of(dataset.train, dataset.test)


def first(split, count):
    return Split(split.examples[:count], split.labels[:count])


def test_features_are_embedded_once(dataset):
    calls = []

    def embed(variables, images):
        calls.append(len(images))
        return pixels_as_features(variables, images)

    subject = subject_of(first(dataset.train, 300), first(dataset.test, 50), embed)
    for seed in range(2):
        Knn(k=3).run(subject, seed)
    assert calls == [500] * 2  # of one size, so that one is compiled
    features = pixels_as_features(None, dataset.train.examples[:300])
    np.testing.assert_allclose(subject.features[0].values, features, rtol=1e-6)


def test_knn_equals_scikit_learn(digits):
    train, test = digits.features
    oracle = KNeighborsClassifier(
        7,
        metric="cosine",
        algorithm="brute",
        weights=lambda distances: np.exp((1 - distances) / 0.1),
    ).fit(*train)
    found = Knn(k=7, temperature=0.1).run(digits, 0)
    assert found.figures["accuracy"] == (pytest.approx(oracle.score(*test)),)


def test_few_shots_are_drawn_per_class_and_repeat(digits):
    protocol = FewShot(per_class=(1, 5), draws=4, alphas=(1.0, 10.0))
    found = protocol.run(digits, 0)
    assert {name: len(values) for name, values in found.figures.items()} == {
        "1 label": 4,
        "5 labels": 4,
    }
    assert np.mean(found.figures["5 labels"]) > np.mean(found.figures["1 label"]) > 0.4
    assert found == protocol.run(digits, 0) and found != protocol.run(digits, 1)
    assert found.chosen["5 labels"]["alpha"] in (1.0, 10.0)


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
    train, test = (
        x.values / np.linalg.norm(x.values, axis=1, keepdims=True) for x in digits.features
    )
    oracle = KMeans(10, n_init=4, random_state=0).fit(train)
    expected = agreement(digits.features[1].labels, oracle.predict(test))
    assert found["NMI"][0] == pytest.approx(expected["NMI"][0], abs=0.05)


def test_the_tightest_clusters_are_taken(digits, monkeypatch):
    train = digits.features[0]
    means = np.stack([train.values[train.labels == label].mean(axis=0) for label in range(10)])
    poor = np.repeat(means[:1], 10, axis=0)
    tries = np.array([3.0, 1.0, 2.0]), np.stack([poor, means, poor])
    monkeypatch.setattr(clusters, "_tries", lambda *_: tries)
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
    found = Semi(learning_rates=(1.0,), shares=(0.05,), epochs=20, least_steps=20).run(subject, 0)
    assert found.chosen == {"5% of labels": {"learning rate": 1.0}}
    assert 0.15 < found.figures["5% of labels"][0] < accuracy
    with pytest.raises(UserError, match="diverged at a learning rate of 1e"):
        tune(
            subject,
            rows,
            labels[rows],
            dataclasses.replace(settings, learning_rates=(1e30,)),
            seed=0,
        )


def test_fine_tuning_is_evaluated_on_what_it_has_not_seen(dataset, monkeypatch):
    subject = subject_of(dataset.train, dataset.test)
    rows, labels = np.arange(10, 110), dataset.train.labels[10:110]
    evaluated = []

    def accuracy(subject, tuned, *, split, rows=None):
        evaluated.append((split, rows, tuned))
        return {0.1: 0.2, 0.2: 0.9, 0.3: 0.5}[tuned["rate"]]

    monkeypatch.setattr(
        fine_tuning, "_train", lambda subject, rows, *, rate, **_: {"rate": rate, "rows": rows}
    )
    monkeypatch.setattr(fine_tuning, "_accuracy", accuracy)
    assert tune(subject, rows, labels, FineTune(learning_rates=(0.1, 0.2, 0.3)), seed=0) == (
        0.9,
        {"learning rate": 0.2},
    )
    *tried, (split, some, tuned) = evaluated
    assert split is subject.test and some is None and tuned["rows"].tolist() == rows.tolist()
    for split, some, tuned in tried:
        assert split is subject.train and sorted([*some, *tuned["rows"]]) == rows.tolist()


def test_arc_separates_a_network_that_knows_images_from_one_that_does_not(dataset, monkeypatch):
    def of_batch(some, count):
        apart = jnp.eye(len(some[0]), 512)
        mixed = jax.random.normal(jax.random.key(1), (len(some[0]), count, 8))
        return jnp.stack([apart] * count, axis=1), mixed

    of_views = lambda subject, count: functools.partial(of_batch, count=count)
    monkeypatch.setattr(arc, "embed_views", of_views)
    subject = subject_of(first(dataset.train, 100), None)
    found = Arc(images=1000, views=3).run(subject, 0).figures
    assert found["ACR"] == (0.0,)
    untrained = found["ACR untrained"][0]
    assert 0.9 < untrained < 1 and found["ARC"][0] == pytest.approx(1 / (1 - untrained), rel=1e-5)


def nan_features(variables, images):
    features = pixels_as_features(variables, images)
    return features.at[1, 0].set(np.nan)


def without(split, label):
    kept = split.labels != label
    return Split(split.examples[kept], split.labels[kept])


def test_refuses(dataset):
    train, test = first(dataset.train, 40), first(dataset.test, 20)
    whole = subject_of(train, test)
    lacking = subject_of(without(train, 7), test)
    broken = subject_of(train, test, nan_features)
    cases = [
        (Knn(k=41), whole, "k = 41 neighbors of 40 training rows"),
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
