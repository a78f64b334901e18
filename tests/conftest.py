"""Every test sees 8 CPU devices; rank promotion is an error, and so is any warning (pyproject.toml)."""

import os

# Tests compile much and compute little: without LLVM's optimisations they take half the time.
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ["JAX_PLATFORMS"] = "cpu"
# Two workers on two cores: a second BLAS thread of each only waits for the other's.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

import pytest


@pytest.fixture
def strict_promotion():
    """Types never mix in silence: for the core, which promises what it computes in."""
    with jax.numpy_dtype_promotion("strict"):
        yield
