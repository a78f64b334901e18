"""Values and gradients of the official UniCLR functions, on inputs in closed form."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxclr import losses

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "uniclr.json").read_text())[
    "cases"
]


def inputs(rows, width):
    i, j = np.arange(rows)[:, None], np.arange(width)[None, :]
    q1 = np.sin(0.7 * i + 1.3 * j + 0.1 * i * j)
    k2 = q1 + 0.3 * np.cos(1.1 * i - 0.9 * j + 0.05 * i * j)
    q2 = np.cos(0.4 * i - 0.8 * j + 0.2 * i * j)
    k1 = q2 - 0.2 * np.sin(0.6 * i + 0.5 * j - 0.07 * i * j)
    return q1, k2, q2, k1


@functools.cache
def everything(name):
    """The compiled losses of both directions, their sum, and its gradients at the queries."""

    def direction(q, k, temperature, weight):
        if name == "SimTrace":
            return losses.sim_trace(q, k)
        loss = {"SimAffinity": losses.sim_affinity, "SimWhitening": losses.sim_whitening}[name]
        return loss(q, k, temperature=temperature, symmetry_weight=weight)

    @jax.jit
    def compiled(q1, k2, q2, k1, temperature, weight):
        def both(q1, q2):
            each = direction(q1, k2, temperature, weight), direction(q2, k1, temperature, weight)
            return sum(each), each

        (total, each), gradients = jax.value_and_grad(both, (0, 1), has_aux=True)(q1, q2)
        return *each, total, *gradients

    return compiled


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float64, 1e-9), (jnp.float32, 1e-5)])
@pytest.mark.parametrize("name", sorted({case["name"] for case in CASES}))
def test_official_values_and_gradients(name, dtype, tolerance):
    wanted = ("loss_q1k2", "loss_q2k1", "total", "dtotal_dq1", "dtotal_dq2")
    with jax.enable_x64(True):
        for case in (case for case in CASES if case["name"] == name):
            settings = (case.get("T") or 1.0, case.get("gamma") or 0.0)
            arrays = (*inputs(case["N"], case["D"]), *settings)
            got = everything(name)(*(jnp.asarray(a, dtype) for a in arrays))
            for value, key in zip(got, wanted, strict=True):
                np.testing.assert_allclose(
                    value, case[key], rtol=tolerance, atol=tolerance, err_msg=f"{case['N']} {key}"
                )


def test_every_case_is_there():
    assert len(CASES) == 18
