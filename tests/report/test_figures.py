"""Figures of a run's snapshots against scikit-learn's and NumPy's word on the same arrays."""

import re

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from jaxclr.report.maps import maps
from jaxclr.report.matrices import NEIGHBORS, TEMPERATURE, affinities, confusions
from jaxclr.report.pictures import neighbors, views
from jaxclr.report.records import Record
from jaxclr.runs.readers import Description, Evaluation
from jaxclr.runs.snapshots import Images, Labels, Snapshot

CLASSES = ("ant", "bee", "<cat>")


@pytest.fixture(scope="module")
def record():
    """Loose clusters of 90 and 30 images: some neighbors are of another class."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(3, 5))

    def some(count):
        labels = rng.integers(0, 3, count)
        rows = centers[labels] + 1.2 * rng.normal(size=(count, 5))
        return labels, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    (gallery_labels, gallery), (query_labels, queries) = some(90), some(30)
    pixels = lambda count: rng.integers(0, 256, (count, 4, 4, 1), np.uint8)
    images = Images(pixels(90), pixels(30), (pixels(2), pixels(2)))
    end = Snapshot(gallery, queries, queries[:10], gallery[:10])
    start = end._replace(queries=gallery[:30], columns=queries[:10])
    description = Description("SimClr", "SmallConv", "digits", 1, 16, 0, {})
    return Record(
        number=1,
        name="run",
        config=description,
        lines=[],
        evaluation=Evaluation(),
        labels=Labels(gallery_labels, query_labels, CLASSES),
        images=images,
        channels="",
        snapshots={0: start, 8: end},
        bad_step=None,
    )


@pytest.fixture(scope="module")
def oracle(record):
    weights = lambda distances: np.exp((1 - distances) / TEMPERATURE)
    classifier = KNeighborsClassifier(
        NEIGHBORS, metric="cosine", algorithm="brute", weights=weights
    )
    return classifier.fit(record.snapshots[8].gallery, record.labels.gallery)


def alts(figure):
    return re.findall(r'alt="([^"]*)"', figure.body)


def test_errors_are_those_of_the_nearest_neighbours_at_the_end(record, oracle):
    (figure,) = confusions(record)
    labels, predicted = record.labels.queries, oracle.predict(record.snapshots[8].queries)
    counts = confusion_matrix(labels, predicted)
    wrong = 30 - np.trace(counts)
    assert 0 < wrong < 20
    assert figure.caption.startswith(
        f"{wrong} of 30 examples are classified wrongly by their 20 nearest of 90"
    )
    rows = re.findall(
        r"<tr><th scope=row>(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", figure.body
    )
    expected = []
    for index, name in enumerate(("ant", "bee", "&lt;cat&gt;")):
        others = counts[index].copy()
        others[index] = 0
        taken = ("ant", "bee", "&lt;cat&gt;")[others.argmax()] if others.any() else "-"
        total = counts[index].sum()
        expected.append((name, f"{1 - counts[index, index] / total:.1%}", str(total), taken))
    assert sorted(rows) == sorted(expected)
    rates = [float(row[1].rstrip("%")) for row in rows]
    assert rates == sorted(rates, reverse=True)


def test_neighbors_come_nearest_first_and_others_are_framed(record, oracle):
    (figure,) = neighbors(record)
    distances, nearest = oracle.kneighbors(record.snapshots[8].queries, 6)
    chosen = np.linspace(0, 29, 12).astype(int)
    labels, own = (
        record.labels.gallery[nearest[chosen]],
        record.labels.queries[chosen],
    )
    expected = []
    for row, query in enumerate(chosen):
        expected.append(f"Query of class {CLASSES[own[row]]}")
        for column in range(6):
            cosine = f"{1 - distances[query, column]:.3f}"
            said = f"Neighbor {column + 1} of class {CLASSES[labels[row, column]]}, cosine {cosine}"
            expected.append(said + ", another class" * bool(labels[row, column] != own[row]))
    assert alts(figure) == [said.replace("<", "&lt;").replace(">", "&gt;") for said in expected]
    wrong = np.sum(labels != own[:, None])
    assert wrong > 0 and figure.body.count('class="other"') == wrong
    assert f" {wrong} of 72 are of another class" in figure.caption


def test_affinities_are_shown_of_each_step(record):
    start, end = affinities(record)
    assert (start.title, end.title) == ("A at the start (step 0)", "A at the end (step 8)")
    for figure, arrays in zip((start, end), record.snapshots.values(), strict=True):
        matrix = arrays.rows @ arrays.columns.T
        diagonal, rest = np.diag(matrix).mean(), matrix[~np.eye(10, dtype=bool)].mean()
        assert (
            f"the diagonal has a mean cosine of {diagonal:.2f}, the rest {rest:.2f}." in figure.body
        )


def test_the_map_by_pca_is_scikit_learns(record):
    pca, tsne = maps(record)
    share = PCA(2).fit(record.snapshots[8].queries).explained_variance_ratio_.sum()
    assert pca.caption == f"The two directions of largest variance, {share:.0%} of the total."
    for figure in (pca, tsne):
        assert figure.body.count("<use") >= 30
        assert all(f"</span>{name}" in figure.body for name in ("ant", "bee", "&lt;cat&gt;"))


def test_views_follow_their_image(record):
    (figure,) = views(record)
    assert [said.split(" of ")[0] for said in alts(figure)] == ["Image", "View 1", "View 2"] * 2
