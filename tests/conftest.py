"""Every test sees 8 CPU devices; rank promotion is an error, and so is any warning (pyproject.toml)."""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

import pytest


@pytest.fixture
def strict_promotion():
    """Types never mix in silence: for the core, which promises what it computes in."""
    with jax.numpy_dtype_promotion("strict"):
        yield
