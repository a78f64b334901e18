"""What every loss checks of its inputs before it computes, at trace time and in Python."""

import math
import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Array = jax.Array


def check_embeddings(**named: Array) -> tuple[Array, ...]:
    """The given [b, D] embeddings in one float type of at least float32.

    Args:
      **named: arrays of one shape [b, D], by the names that an error should use.

    Returns:
      The arrays in their order, float32, or float64 if any of them is.

    Raises:
      TypeError: one of them is no array of floats.
      ValueError: one is not a matrix, has no rows or no columns, or shapes differ.
    """
    for name, value in named.items():
        if not hasattr(value, "dtype") or not hasattr(value, "shape"):
            raise TypeError(f"{name} must be an array of floats, got {type(value).__name__}.")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"{name} must hold floats, got {value.dtype}: convert it with {name}.astype(jnp.float32)."
            )
        if value.ndim != 2 or 0 in value.shape:
            raise ValueError(
                f"{name} must be embeddings [b, D] with b and D of at least 1, got shape {value.shape}."
            )
    (first, *rest) = named.items()
    for name, value in rest:
        if value.shape != first[1].shape:
            raise ValueError(
                f"{first[0]} and {name} must have one shape, row i of each belonging to image i; "
                f"got {first[1].shape} and {value.shape}."
            )
    double = any(value.dtype == jnp.float64 for value in named.values())
    dtype = jnp.float64 if double else jnp.float32
    return tuple(jnp.asarray(value, dtype) for value in named.values())


def check_positive(name: str, value: object, *, zero: bool = False) -> None:
    """Raises ValueError for a Python number that is not positive; arrays and tracers pass.

    Args:
      name: what an error should call it.
      value: the hyper-parameter.
      zero: whether zero is allowed.
    """
    wanted = "zero or more" if zero else "more than zero"
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise ValueError(f"{name} must be finite and {wanted}, got {value}.")
    elif isinstance(value, bool) or getattr(value, "shape", None) != ():
        raise TypeError(f"{name} must be a number, got {value!r}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError if value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")
