"""Checks of dataclass fields against their annotations: types, choices and bounds."""

import dataclasses
import math
import types
import typing
from collections.abc import Container, Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import annotated_types as at

from jaxclr.errors import UserError, either, shown

LARGEST = 2**63  # whole numbers are smaller

# For each kind of bound: its description, and a check of a value.
_BOUNDS = {
    at.Gt: (lambda bound: f"greater than {bound.gt}", lambda value, bound: value > bound.gt),
    at.Ge: (lambda bound: f"at least {bound.ge}", lambda value, bound: value >= bound.ge),
    at.Lt: (lambda bound: f"less than {bound.lt}", lambda value, bound: value < bound.lt),
    at.Le: (lambda bound: f"at most {bound.le}", lambda value, bound: value <= bound.le),
    at.MultipleOf: (
        lambda bound: f"a multiple of {bound.multiple_of}",
        lambda value, bound: value % bound.multiple_of == 0,
    ),
    at.MinLen: (
        lambda bound: f"of length {bound.min_length} or more",
        lambda value, bound: len(value) >= bound.min_length,
    ),
    at.MaxLen: (
        lambda bound: f"of length {bound.max_length} or less",
        lambda value, bound: len(value) <= bound.max_length,
    ),
}
_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    tuple: "a tuple",
}


def check_fields(instance: Any, name: str = "", *, own: Container[str] = ()) -> None:
    """Checks the fields of a dataclass instance against their annotations.

    Checked are classes, Literal, tuples, unions, and the bounds of annotated-types around any of
    them: `Annotated[float, Gt(0)]`, `tuple[Annotated[int, Ge(1)], ...]`,
    `Annotated[float, Gt(0)] | None`. An int may stand for a float, a bool is not a number, and
    floats must be finite. Other annotations (Any, callables, protocols) accept everything.

    Args:
      instance: of any dataclass, from its `__post_init__`.
      name: prefix of the fields in messages: "method" for "method.temperature"; empty for none.
      own: fields that may hold objects of a user's own types; they are not checked.

    Raises:
      UserError: a value has another type or is out of bounds, or an annotation cannot be read.
    """
    try:
        hints = typing.get_type_hints(type(instance), include_extras=True)
    except (NameError, AttributeError) as error:
        raise UserError(
            f"The annotations of {type(instance).__name__} cannot be read: {error}. "
            "Define what they name at the top level of the file."
        ) from error
    for field in dataclasses.fields(instance):
        if field.name in own:
            continue
        path = f"{name}.{field.name}".removeprefix(".")
        if mismatch := _mismatch(getattr(instance, field.name), hints[field.name], path):
            got = shown(mismatch.value)
            raise UserError(f"{mismatch.path} must be {mismatch.wanted}, got {got}.")


class _Mismatch(NamedTuple):
    path: str
    wanted: str
    value: Any


def _mismatch(value: Any, hint: Any, path: str) -> _Mismatch | None:
    """The first mismatch of a value, or of an element of it, with a hint; None if it fits."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _mismatch(value, arguments[0], path) or _out_of_bounds(value, arguments[1:], path)
    if origin in (typing.Union, types.UnionType):
        found = [_mismatch(value, member, path) for member in arguments]
        inside = [one for one in found if one is not None and one.path != path]
        if None in found or inside:
            return None if None in found else inside[0]
        return _Mismatch(path, either([one.wanted for one in found if one]), value)
    if origin is Literal:
        same = lambda choice: type(value) is type(choice) and value == choice
        if any(map(same, arguments)):
            return None
        return _Mismatch(path, either(map(repr, arguments)), value)
    kind = origin or hint
    if kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return None
    if kind is float and isinstance(value, int | float) and not _is_finite(value):
        return _Mismatch(path, "a finite number", value)
    if kind is int and isinstance(value, int) and abs(value) >= LARGEST:
        return _Mismatch(path, "a whole number of 64 bits", value)
    if not _is_instance(value, kind):
        wanted = "None" if kind is types.NoneType else _NAMES.get(kind, kind.__name__)
        return _Mismatch(path, wanted, value)
    if kind is tuple and arguments:
        return _of_tuple(value, arguments, path)
    return None


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


def _is_instance(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _of_tuple(value: Any, hints: Sequence[Any], path: str) -> _Mismatch | None:
    if hints[-1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(value) != len(hints):
        return _Mismatch(path, f"a tuple of {len(hints)} values", value)
    pairs = enumerate(zip(value, hints, strict=True))
    found = (_mismatch(one, hint, f"{path}[{index}]") for index, (one, hint) in pairs)
    return next((one for one in found if one), None)


def _out_of_bounds(value: Any, extras: Iterable[Any], path: str) -> _Mismatch | None:
    """The mismatch of a value with the bounds among the extras of an annotation, if any."""
    if value is None:  # of Annotated[float | None, ...]
        return None
    single = [
        part for one in extras for part in (one if isinstance(one, at.GroupedMetadata) else (one,))
    ]
    bounds = [(bound, *_BOUNDS[type(bound)]) for bound in single if type(bound) in _BOUNDS]
    if all(holds(value, bound) for bound, _, holds in bounds):
        return None
    return _Mismatch(path, " and ".join(words(bound) for bound, words, _ in bounds), value)
