"""Fields against their annotations: what is accepted, and the sentence that refuses the rest."""

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen, MultipleOf

from jaxclr.errors import UserError
from jaxclr.fields import check_fields


@dataclasses.dataclass(frozen=True)
class Part:
    width: int = 3


@dataclasses.dataclass(frozen=True)
class Other:
    pass


@dataclasses.dataclass(frozen=True)
class Mine:
    """A user's class, with a field of every form."""

    kind: ClassVar[int] = 0

    temperature: Annotated[float, Gt(0)] = 0.2
    share: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    most: Annotated[float, Lt(3), Le(2)] = 1.0
    plain: float = 0.0
    count: Annotated[int, Ge(1)] = 1
    width: Annotated[int, MultipleOf(4)] = 8
    flag: bool = False
    name: str = ""
    mode: Literal["a", "b", 3] = "a"
    clip: Annotated[float, Gt(0)] | None = None
    outside: Annotated[float | None, Gt(0)] = None
    rates: Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1), MaxLen(2)] = (0.1,)
    means: tuple[Annotated[float, Le(1)], ...] | None = None
    range: tuple[Annotated[float, Gt(0)], float] = (1.0, 2.0)
    part: Part = Part()
    either: Part | Other = Part()
    anything: Any = None
    function: Callable[[int], int] | None = None
    pairs: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_fields(self, "mine")


GOOD = [
    {"temperature": 1, "plain": -1, "clip": 1, "rates": (1, 2.5)},
    {"share": 0, "most": 2, "mode": 3, "means": (1, -5.0), "range": (1, -2)},
    {"either": Other(), "anything": object(), "function": len, "clip": None, "outside": 1.0},
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_fits_is_accepted(fields):
    assert dataclasses.asdict(Mine(**fields)).keys() == dataclasses.asdict(Mine()).keys()


BAD = {
    "mine.temperature must be greater than 0, got -1.": {"temperature": -1},
    "mine.temperature must be greater than 0, got 0.": {"temperature": 0},
    "mine.temperature must be a number, got True.": {"temperature": True},
    "mine.temperature must be a number, got '1'.": {"temperature": "1"},
    "mine.temperature must be a number, got None.": {"temperature": None},
    "mine.temperature must be a finite number, got nan.": {"temperature": math.nan},
    "mine.plain must be a finite number, got inf.": {"plain": math.inf},
    "mine.share must be at least 0 and less than 1, got 1.0.": {"share": 1.0},
    "mine.share must be at least 0 and less than 1, got -0.1.": {"share": -0.1},
    "mine.most must be less than 3 and at most 2, got 2.5.": {"most": 2.5},
    "mine.count must be at least 1, got 0.": {"count": 0},
    "mine.count must be a whole number, got 2.0.": {"count": 2.0},
    "mine.count must be a whole number, got True.": {"count": True},
    "mine.width must be a multiple of 4, got 6.": {"width": 6},
    "mine.flag must be True or False, got 1.": {"flag": 1},
    "mine.name must be a string, got 3.": {"name": 3},
    "mine.mode must be 'a', 'b' or 3, got 'c'.": {"mode": "c"},
    "mine.mode must be 'a', 'b' or 3, got 3.0.": {"mode": 3.0},
    "mine.clip must be greater than 0 or None, got 0.0.": {"clip": 0.0},
    "mine.clip must be a number or None, got 'no'.": {"clip": "no"},
    "mine.outside must be greater than 0, got 0.": {"outside": 0},
    "mine.rates must be of length 1 or more and of length 2 or less, got ().": {"rates": ()},
    "mine.rates must be of length 1 or more and of length 2 or less, got (1, 2, 3).": {
        "rates": (1, 2, 3)
    },
    "mine.rates[1] must be greater than 0, got 0.": {"rates": (1, 0)},
    "mine.rates must be a tuple, got [1].": {"rates": [1]},
    "mine.means[0] must be at most 1, got 128.0.": {"means": (128.0,)},
    "mine.means must be a tuple or None, got 0.5.": {"means": 0.5},
    "mine.range must be a tuple of 2 values, got (1,).": {"range": (1,)},
    "mine.range[0] must be greater than 0, got 0.": {"range": (0, 1)},
    "mine.part must be Part, got 3.": {"part": 3},
    "mine.either must be Part or Other, got 3.": {"either": 3},
    "mine.pairs must be dict, got ().": {"pairs": ()},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_is_refused_in_a_sentence(message):
    with pytest.raises(UserError) as error:
        Mine(**BAD[message])
    assert str(error.value) == message


def test_fields_may_have_no_prefix():
    with pytest.raises(UserError, match=r"^width must be a whole number, got '3'\.$"):
        check_fields(Part("3"))


def test_fields_that_take_a_users_own_types_are_left_out():
    check_fields(Part("3"), own=("width",))


def test_annotations_that_cannot_be_read_are_named():
    @dataclasses.dataclass
    class Lost:
        field: "Nowhere" = 3  # noqa: F821

    with pytest.raises(UserError, match="annotations of Lost cannot be read: name 'Nowhere'"):
        check_fields(Lost())
