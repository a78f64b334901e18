"""Examples without a label (-1) are trained on, and judge nothing."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from distributed import mesh
from tiny import tiny_config

from jaxclr.data import Arrays
from jaxclr.errors import UserError
from jaxclr.evaluation import resident
from jaxclr.evaluation.protocols import fine_tuning
from jaxclr.training.session import open_session

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
LABELS = np.where(np.arange(48) % 4 == 3, -1, np.arange(48) % 3)


def partly(method="sim_affinity"):
    data = Arrays(IMAGES, LABELS, IMAGES[:16], LABELS[:16], mean=(0.5,), std=(0.3,))
    return tiny_config(method, data=data)


@pytest.fixture(scope="module")
def session():
    return open_session(partly())


@pytest.mark.parametrize("method", ["sup_con", "hydra"])
def test_methods_that_learn_from_labels_refuse_them(method):
    message = "(SupCon|Hydra) learns from labels, and 12 of the 48 training images .* have none .-1"
    with pytest.raises(UserError, match=message):
        open_session(partly(method))


def test_fine_tuning_takes_labeled_rows(session):
    subject = types.SimpleNamespace(dataset=session.dataset, classes=session.dataset.classes)
    rows, labels = fine_tuning.labeled_rows(subject)
    np.testing.assert_array_equal(rows, np.flatnonzero(LABELS >= 0))
    np.testing.assert_array_equal(labels, LABELS[LABELS >= 0])


def test_fine_tuning_is_judged_on_labeled_rows(session, monkeypatch):
    """A classifier that answers -1, as one that is not finite does, is never right."""
    subject = types.SimpleNamespace(size=None, encoder=None, plain=None, mesh=mesh(2))
    for answer, want in ((-1, 0.0), (0, np.mean(LABELS[:16][LABELS[:16] >= 0] == 0))):
        always = lambda _, __, images, answer=answer, **___: jnp.full(len(images), answer)
        monkeypatch.setattr(fine_tuning, "_classify", always)
        got = fine_tuning._accuracy(subject, ((), ()), split=session.dataset.test)
        assert got == pytest.approx(want)


def test_resident_knn_leaves_them_out(session, monkeypatch):
    """With images as their own representations, the nearest labeled neighbor of an image of the
    training split is the image itself."""
    monkeypatch.setattr(
        resident, "representations", lambda _, images, **__: images.reshape(len(images), -1) / 255
    )
    accuracy = resident.compile_knn(session.recipe, mesh(1), session.dataset, k=1, temperature=0.1)
    assert float(accuracy(None, IMAGES, IMAGES[:16])) == 1.0
