"""Values and gradients of the official UniCLR functions, on inputs in closed form."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr import losses

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "uniclr.json").read_text())["cases"]


def inputs(rows, width):
    i, j = np.arange(rows)[:, None], np.arange(width)[None, :]
    q1 = np.sin(0.7 * i + 1.3 * j + 0.1 * i * j)
    k2 = q1 + 0.3 * np.cos(1.1 * i - 0.9 * j + 0.05 * i * j)
    q2 = np.cos(0.4 * i - 0.8 * j + 0.2 * i * j)
    k1 = q2 - 0.2 * np.sin(0.6 * i + 0.5 * j - 0.07 * i * j)
    return q1, k2, q2, k1


def direction(case):
    if case["name"] == "SimTrace":
        return losses.sim_trace
    loss = {"SimAffinity": losses.sim_affinity, "SimWhitening": losses.sim_whitening}[case["name"]]
    return lambda q, k: loss(q, k, temperature=case["T"], symmetry_weight=case["gamma"])


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-9), (jnp.float32, 1e-5)])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(str(c.get(k)) for k in ("name", "N", "T", "gamma")))
def test_official_values_and_gradients(case, dtype, tolerance):
    with jax.enable_x64(True):
        q1, k2, q2, k1 = (jnp.asarray(a, dtype) for a in inputs(case["N"], case["D"]))
        loss = direction(case)

        @jax.jit
        def everything(q1, k2, q2, k1):
            both = lambda q1, q2: loss(q1, k2) + loss(q2, k1)
            return loss(q1, k2), loss(q2, k1), *jax.value_and_grad(both, (0, 1))(q1, q2)

        first, second, total, (at_q1, at_q2) = everything(q1, k2, q2, k1)
        near = lambda got, wanted: np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
        near(first, case["loss_q1k2"])
        near(second, case["loss_q2k1"])
        near(total, case["total"])
        near(at_q1, case["dtotal_dq1"])
        near(at_q2, case["dtotal_dq2"])


def test_every_case_is_there():
    assert len(CASES) == 18
