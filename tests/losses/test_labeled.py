"""Identities of the losses by labels, and what they refuse beside bad embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from battery import views
from entries.labeled import gated_contrast, sep_clr

from jaxclr import losses

pytestmark = pytest.mark.usefixtures("strict_promotion")
Z1, Z2, *_ = VIEWS = tuple(z.astype(np.float32) for z in views(4)(np.random.default_rng(0), 8, 5))
OWN = np.arange(8, dtype=np.int32)


def test_sup_con_of_own_labels_is_nt_xent():
    value = losses.sup_con((Z1, Z2), OWN, temperature=0.2, base_temperature=0.05)
    np.testing.assert_allclose(value, 4 * losses.nt_xent(Z1, Z2, temperature=0.2), rtol=1e-5)


def test_a_row_without_mates_counts_as_nothing():
    at = jax.value_and_grad(lambda view: losses.sup_con(view, OWN))
    value, gradient = at(Z1[None])
    assert value == 0 and not np.any(gradient)
    paired = np.array([0, 0, 1, 2, 3, 4, 5, 6], np.int32)
    logits = 1e3 * np.eye(8, 5, dtype=np.float32)
    spread = losses.sup_con(logits[None], paired, temperature=1.0, base_temperature=1.0)
    np.testing.assert_allclose(spread, 2 * np.log(7) / 8, rtol=1e-5)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels must be \[8\]"):
        losses.sup_con((Z1, Z2), OWN[:7])
    with pytest.raises(TypeError, match="labels must be an array of integers"):
        losses.sup_con((Z1, Z2), OWN.astype(np.float32))
    with pytest.raises(TypeError, match="partner_labels must be an array of integers"):
        losses.gated_contrast(Z1, Z2, OWN, OWN.astype(np.float32))


@pytest.mark.parametrize(
    "partners", [OWN, OWN + 8, np.zeros_like(OWN)], ids=["own", "absent", "one class"]
)
def test_gated_contrast_of_any_pairing(partners):
    gate = np.abs(Z2)
    value, gradients = jax.value_and_grad(losses.gated_contrast, (0, 1))(Z1, gate, OWN, partners)
    np.testing.assert_allclose(
        value, gated_contrast(Z1, gate, OWN, partners, 0.1), rtol=1e-4, atol=1e-6
    )
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_gated_contrast_without_negatives_is_nothing():
    same = np.zeros_like(OWN)
    value, gradient = jax.value_and_grad(losses.gated_contrast)(Z1, np.abs(Z2), same, same)
    assert value == 0 and not np.any(gradient)


def test_a_gate_that_shuts_a_row_off_leaves_gradients_finite():
    gate = np.zeros_like(Z1)
    gate[:, 0] = 1.0
    z = np.where(OWN[:, None] == 3, np.eye(5, dtype=np.float32)[1], Z1)
    value, gradients = jax.value_and_grad(losses.gated_contrast, (0, 1))(z, gate, OWN % 3, OWN % 2)
    assert np.isfinite(value)
    assert max(np.abs(gradient).max() for gradient in gradients) < 1e3


@pytest.mark.parametrize("kind", [0, 1])
def test_sep_clr_without_a_class(kind):
    salient = VIEWS[2][:, :3], VIEWS[3][:, :3]
    labels = np.full(8, kind, np.int32)
    at = jax.value_and_grad(losses.sep_clr, (0, 1, 2, 3))
    value, gradients = at(Z1, Z2, *salient, labels)
    np.testing.assert_allclose(value, sep_clr(Z1, Z2, *salient, labels), rtol=1e-4)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_the_terms_of_sep_clr_have_their_weights():
    labels = OWN % 2
    names = ("salient_weight", "background_weight", "joint_entropy_weight")
    none = dict.fromkeys(names, 0.0)
    at = lambda **weights: losses.sep_clr(*VIEWS, labels, **{**none, **weights})
    terms = [at(**{name: 1.0}) - at() for name in names]
    whole = at() + 1000 * terms[0] + 1000 * terms[1] + 10 * terms[2]
    np.testing.assert_allclose(whole, sep_clr(*VIEWS, labels), rtol=1e-4)


def test_what_sep_clr_cannot_take_is_refused():
    with pytest.raises(ValueError, match="labels must be 0 to 1, got 2"):
        losses.sep_clr(*VIEWS, OWN)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        losses.sep_clr(*(z[:1] for z in VIEWS), OWN[:1])
    with pytest.raises(ValueError, match="joint_entropy_weight must be finite and zero or more"):
        losses.sep_clr(*VIEWS, OWN % 2, joint_entropy_weight=-1.0)
    with pytest.raises(ValueError, match="common1 and common2 must have the same D"):
        losses.sep_clr(Z1, jnp.ones((8, 4)), *VIEWS[2:], OWN % 2)
