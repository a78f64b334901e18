"""Checks of inputs. They run in Python, at trace time, before a loss computes anything."""

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def check_embeddings(**named: Array) -> tuple[Array, ...]:
    """The given [b, D] embeddings in one float type of at least float32.

    Args:
      **named: arrays of one shape [b, D], by the names that an error should use.

    Returns:
      The arrays in their order, float32, or float64 if any of them is.

    Raises:
      TypeError: one of them is not an array of floats.
      ValueError: one is not a matrix, has no rows or no columns, or shapes differ.
    """
    return check_floats(**{name: (value, "b D") for name, value in named.items()})


def check_floats(**named: tuple[Array, str]) -> tuple[Array, ...]:
    """The given arrays in one float type of at least float32, their shapes as written.

    Args:
      **named: (array, shape) by the names that an error should use; a shape is letters like "b D"
        or "V b D", of which each stands for one size of at least 1, the same in all arrays.

    Returns:
      The arrays in their order, float32, or float64 if any of them is.

    Raises:
      TypeError: one of them is not an array of floats.
      ValueError: a shape is not as written.
    """
    sizes: dict[str, tuple[int, str]] = {}
    for name, (value, shape) in named.items():
        if not hasattr(value, "dtype") or not hasattr(value, "shape"):
            raise TypeError(f"{name} must be an array of floats, got {type(value).__name__}.")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise TypeError(
                f"{name} must hold floats, got {value.dtype}: "
                f"convert it with {name}.astype(jnp.float32)."
            )
        _check_shape(name, value.shape, shape.split(), sizes)
    double = any(value.dtype == jnp.float64 for value, _ in named.values())
    dtype = jnp.float64 if double else jnp.float32
    return tuple(jnp.asarray(value, dtype) for value, _ in named.values())


def check_views(views: Array | Sequence[Array], *, least: int = 2, name: str = "views") -> Array:
    """Views of one batch as one array [V, b, D] of at least float32.

    Args:
      views: [V, b, D], or a sequence of V arrays [b, D].
      least: how many there must be.
      name: what an error should call them.

    Raises:
      TypeError: they are not arrays of floats.
      ValueError: they are not matrices, differ in shape, or are too few.
    """
    if isinstance(views, Sequence):
        named = {f"{name}[{v}]": view for v, view in enumerate(views)}
        stacked = jnp.stack(check_embeddings(**named)) if named else jnp.zeros((0, 1, 1))
    else:
        (stacked,) = check_floats(**{name: (views, "V b D")})
    if stacked.shape[0] < least:
        raise ValueError(f"{name} must be at least {least} of each image, got {stacked.shape[0]}.")
    return stacked


def check_batch(images: int) -> None:
    """Raises ValueError unless the global batch has at least two images."""
    if images < 2:
        raise ValueError(
            f"the global batch must be at least 2 images, got {images}: none has a negative."
        )


def check_ids(name: str, ids: Array, rows: int | None, *, below: int | None = None) -> Array:
    """Integers [rows] as int32: labels, assignments, batch indices.

    Args:
      name: what an error should call them.
      ids: [rows].
      rows: how many there must be; None for any number.
      below: they must be 0 ... below - 1, which is checked where their values are known; None for
        any.

    Raises:
      TypeError: they are not an array of integers.
      ValueError: they are not so many, or one is out of range.
    """
    if not hasattr(ids, "dtype") or not jnp.issubdtype(ids.dtype, jnp.integer):
        kind = getattr(ids, "dtype", type(ids).__name__)
        raise TypeError(f"{name} must be an array of integers, got {kind}.")
    if rows is None and ids.ndim != 1:
        raise ValueError(f"{name} must be one list of integers, got shape {ids.shape}.")
    if rows is not None and ids.shape != (rows,):
        raise ValueError(f"{name} must be [{rows}], one for each row, got shape {ids.shape}.")
    if below is not None and not isinstance(ids, jax.core.Tracer):
        known = np.asarray(ids)
        wrong = known[(known < 0) | (known >= below)]
        if wrong.size:
            raise ValueError(f"{name} must be 0 to {below - 1}, got {wrong[0]}.")
    return jnp.asarray(ids, jnp.int32)


def check_mask(name: str, mask: Array, *shape: int) -> Array:
    """Booleans of this shape.

    Raises:
      TypeError: it is not an array of booleans.
      ValueError: it has another shape.
    """
    if not hasattr(mask, "dtype") or mask.dtype != jnp.bool_:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise TypeError(f"{name} must be an array of booleans, got {kind}.")
    if mask.shape != shape:
        raise ValueError(f"{name} must be {list(shape)}, got shape {mask.shape}.")
    return jnp.asarray(mask)


def check_permutations(name: str, permutations: Array, size: int) -> Array:
    """Permutations [T, size] of 0 ... size - 1 as int32. Values are checked where they are known.

    Raises:
      TypeError: it is not an array of integers.
      ValueError: it has another shape, or a row is not a permutation.
    """
    if not hasattr(permutations, "dtype") or not jnp.issubdtype(permutations.dtype, jnp.integer):
        kind = getattr(permutations, "dtype", type(permutations).__name__)
        raise TypeError(f"{name} must be an array of integers, got {kind}.")
    if permutations.ndim != 2 or permutations.shape[1] != size or not permutations.shape[0]:
        raise ValueError(
            f"{name} must be [T, {size}], permutations of the {size} rows of the global batch; "
            f"got shape {permutations.shape}."
        )
    if not isinstance(permutations, jax.core.Tracer):
        wanted = np.arange(size)
        for index, row in enumerate(np.sort(np.asarray(permutations), axis=1)):
            if not np.array_equal(row, wanted):
                raise ValueError(f"{name}[{index}] is not a permutation of 0 to {size - 1}.")
    return jnp.asarray(permutations, jnp.int32)


def check_positive(name: str, value: object, *, zero: bool = False) -> None:
    """Raises ValueError for a Python number that is not positive; arrays and tracers pass.

    Args:
      name: what an error should call it.
      value: the hyper-parameter.
      zero: whether zero is allowed.
    """
    wanted = "finite and zero or more" if zero else "finite and more than zero"
    _check_number(name, value, wanted, lambda value: value > 0 or (zero and value == 0))


def check_finite(name: str, value: object) -> None:
    """Raises ValueError for a Python number that is not finite; arrays and tracers pass."""
    _check_number(name, value, "finite", lambda _: True)


def check_share(name: str, value: object) -> None:
    """Raises ValueError for a Python number that is not 0 to 1; arrays and tracers pass."""
    check_positive(name, value, zero=True)
    if isinstance(value, numbers.Real) and float(value) > 1:
        raise ValueError(f"{name} must be at most 1, got {value}.")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Raises unless value is a Python integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises ValueError if value is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}.")


def _check_shape(
    name: str, shape: tuple[int, ...], letters: list[str], sizes: dict[str, tuple[int, str]]
) -> None:
    """Raises unless the shape has the known size of each letter; adds new letters to the sizes."""
    written = f"[{', '.join(letters)}]"
    if len(shape) != len(letters) or 0 in shape:
        raise ValueError(f"{name} must be {written}, each of at least 1, got shape {tuple(shape)}.")
    for letter, size in zip(letters, shape, strict=True):
        known, whose = sizes.setdefault(letter, (size, name))
        if size != known:
            raise ValueError(
                f"{whose} and {name} must have the same {letter}: "
                f"{name} must be {written} with {letter} = {known}, got shape {tuple(shape)}."
            )


def _check_number(name: str, value: object, wanted: str, fits: Callable[[Any], bool]) -> None:
    """Raises unless value is a finite Python number that fits, or an array or tracer []."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not (math.isfinite(value) and fits(value)):
            raise ValueError(f"{name} must be {wanted}, got {value}.")
    elif isinstance(value, bool) or getattr(value, "shape", None) != ():
        raise TypeError(f"{name} must be a number, got {value!r}.")
