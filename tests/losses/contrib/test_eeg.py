"""What is particular to losses between two models."""

import numpy as np
import pytest

from jaxclr import losses

F, G = np.random.default_rng(0).normal(size=(2, 3, 8, 5)).astype(np.float32)


def test_views_may_be_a_sequence():
    assert losses.cross_model(tuple(F), list(G)) == losses.cross_model(F, G)


def test_one_view_of_two_models_is_nt_xent():
    one = losses.cross_model(F[:1], G[:1], mode="model", temperature=0.5)
    np.testing.assert_allclose(one, losses.nt_xent(F[0], G[0], temperature=0.5), rtol=1e-6)


@pytest.mark.parametrize(
    "arrays, options, message",
    [
        ((F[:1], G[:1]), {}, "at least 2 of each image, got 1"),
        ((F, G[:2]), {}, "the same V"),
        ((F, G[:, :, :4]), {"mode": "model"}, "the same D"),
        ((F, G), {"mode": "both"}, "mode must be one of 'view', 'model'; got 'both'"),
    ],
)
def test_what_does_not_fit_is_refused(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        losses.cross_model(*arrays, **options)
